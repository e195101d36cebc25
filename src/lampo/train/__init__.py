"""One run: the loop, what it holds open, its directory."""
