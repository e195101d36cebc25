"""Problems -> responses of a model, from this process, from vLLM or from a server: one Protocol, one file per backend."""

from .responder import Asked, Failed, Responder

__all__ = ["Asked", "Failed", "Responder"]
