"""This process, set up: for torch before it is imported, and as a recipe asks.

Idle OpenMP threads that spin take the cores from the thread that works: on two busy cores a step becomes 20 times slower.
So importing this module comes before importing torch.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from .options import make_importable

if TYPE_CHECKING:
    from .config.schema import TrainConfig

for _name, _value in (
    ("OMP_WAIT_POLICY", "PASSIVE"),
    ("GOMP_SPINCOUNT", "0"),
    ("KMP_BLOCKTIME", "0"),
    ("TOKENIZERS_PARALLELISM", "false"),
):
    os.environ.setdefault(_name, _value)


def prepare(config: TrainConfig) -> None:
    """Threads, quiet libraries, our own log lines, and the folders that own functions are imported from."""
    import torch
    import transformers

    make_importable([os.getcwd(), *config.run.imports])
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lampo").setLevel(logging.INFO)
