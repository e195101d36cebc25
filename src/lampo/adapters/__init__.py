"""Entrances from other trainers: each converts their names and shapes and calls `algo`, `rewards` and `verify`. Imported by nobody here."""
