"""Recipes: every setting, typed; read from YAML and explained; no torch."""
