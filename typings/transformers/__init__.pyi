# What pyright reads in the place of transformers: its own package refers to 4,000 files, and reading them took three quarters of `make check`.
from typing import Any

def __getattr__(name: str) -> Any: ...
