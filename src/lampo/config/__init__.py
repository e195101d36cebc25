"""Recipes: every setting, typed. Read from YAML and explained. No torch."""
