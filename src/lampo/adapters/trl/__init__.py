"""LamPO inside TRL: `LamPOTrainer` is `GRPOTrainer` with the advantages of any estimator of `lampo.algo`.

    from lampo.adapters.trl import LamPOConfig, LamPOTrainer

Everything else is TRL's: sampling, the loss, the optimiser, the launcher. The page docs/engines-trl.md shows how.
"""

from .config import LamPOConfig
from .trainer import LamPOTrainer

__all__ = ["LamPOConfig", "LamPOTrainer"]
