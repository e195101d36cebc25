"""Rollouts and advantages -> one optimiser step."""
