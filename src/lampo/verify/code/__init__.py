"""Programs: found in a response and run in a sandbox against tests."""

from .verifier import CodeOptions

__all__ = ["CodeOptions"]
