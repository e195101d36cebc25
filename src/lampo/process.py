"""Setting up this process as a recipe asks."""

from __future__ import annotations

import logging

from .config import TrainConfig


def prepare(config: TrainConfig) -> None:
    """Threads, quiet libraries, our own log lines."""
    import torch
    import transformers

    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lampo").setLevel(logging.INFO)
