"""Verifiers in workers that can be killed."""

from .pool import VerifierPool

__all__ = ["VerifierPool"]
