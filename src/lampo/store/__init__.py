"""What lies on disk: whole or absent, and read back. No torch."""
