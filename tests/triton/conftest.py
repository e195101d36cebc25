"""Kernels are interpreted on a CPU, and compiled where there is a GPU."""

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def module_of_kernels() -> Callable[[str], ModuleType]:
    """A module of `lampo.model` by its name. Triton has to be told to interpret before it is imported."""
    if DEVICE == "cpu" and "TRITON_INTERPRET" not in os.environ:
        pytest.skip("without a GPU they are interpreted, by `make test-triton`")
    pytest.importorskip("triton")
    return lambda name: import_module(f"lampo.model.{name}")


@pytest.fixture
def on_device() -> Iterator[None]:
    """Inside, tensors are random with one seed, and lie where kernels run."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        yield
