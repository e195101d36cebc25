# What pyright reads in the place of transformers, whose own package refers to 4,000 files: reading them took half of `make check`.
from typing import Any

def __getattr__(name: str) -> Any: ...
