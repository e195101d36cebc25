"""Packages of this Python that programs in the sandbox may import: where they lie, and where they are seen."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from .runner import SandboxError

INSIDE = "/packages"
"""Where they are seen in the sandbox. Nothing else lies there."""


def locate(names: Sequence[str]) -> list[Path]:
    """The folders and files of packages, with the libraries that wheels put beside them (`numpy.libs`).

    Raises:
        SandboxError: one is not installed, or is no plain name.
    """
    paths: list[Path] = []
    for name in names:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        origin = next(iter(spec.submodule_search_locations or []), spec.origin) if spec else None
        if origin is None or not Path(origin).exists():
            raise SandboxError(
                f"the package {name}, which programs may import, is not installed here: pip install {name}"
            )
        path = Path(origin)
        paths += [path, *(libraries for libraries in [path.with_name(f"{name}.libs")] if libraries.is_dir())]
    return paths
