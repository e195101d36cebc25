"""Problems -> responses of a model, from this process or from a server: one Protocol, one file per backend."""

from .base import Asked, Failed, Responder

__all__ = ["Asked", "Failed", "Responder"]
