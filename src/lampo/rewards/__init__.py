"""Verdicts and texts -> rewards; no torch."""
