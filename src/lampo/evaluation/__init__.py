"""Measuring: during training (`heldout`), and `lampo eval`."""
