"""What a run would take: memory, seconds a step, hours, and which of its parts takes most. Nothing here imports torch."""
