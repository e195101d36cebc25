"""What a person sees: the console, trackers, the report, the viewer."""
