"""What verl loads by itself (entry point group `verl.plugins`): it makes the estimator `lampo` known, and nothing else.

verl imports this module and never calls it, in every process and before its own modules. So it imports nothing heavy. It waits until
verl imports the modules that it concerns.

What is patched, for the estimator `lampo` alone:

- verl 0.9 does not give an estimator the old log-probs. Until upstream's pull request 7473 (an estimator that takes `batch` is given it),
  `verl.trainer.ppo.ray_trainer.compute_advantage` is wrapped, so that `lampo` finds the batch. Each verl is asked whether it gives the
  batch. One that does is not patched.
- `TrainingWorker.train_batch` leaves rows out that nobody could judge, see `denominators`.
- `PPOTrainer._log_rollout_data` writes more columns, see `dump`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ...types import LampoError

NAME = "lampo"
"""What `algorithm.adv_estimator` is set to; `+algorithm.lampo.name=` says which of our estimators that is."""
REGISTRY, TRAINER = "verl.trainer.ppo.core_algos", "verl.trainer.ppo.ray_trainer"
"""Where verl keeps its estimators, and where it calls them."""
WORKERS, ROLLOUTS = "verl.workers.engine_workers", "verl.trainer.ppo.v1.trainer_base"
"""Where verl updates, and where its newer trainer writes rollouts down."""

logger = logging.getLogger("lampo")
_batch: ContextVar[Any] = ContextVar("batch of verl", default=None)
_refusals: list[str] = []


def estimator(
    token_level_rewards: Any,
    response_mask: Any,
    config: Any = None,
    index: Any = None,
    batch: Any = None,
    **others: Any,
) -> tuple[Any, Any]:
    """What verl calls: advantages and returns, both (N, T).

    Args:
        token_level_rewards: (N, T).
        response_mask: (N, T).
        config: verl's section `algorithm`; its `lampo` has our settings.
        index: (N,) names of the groups.
        batch: verl's whole batch, by name. From it come the old log-probs.
        others: what verl passes and we do not need.

    Raises:
        LampoError: the estimator could not be set up, or verl lacks what it needs.
    """
    if _refusals:
        raise LampoError(f"adv_estimator={NAME} cannot be used. {' '.join(_refusals)}")
    batch = _batch.get() if batch is None else batch
    if batch is None:
        raise LampoError(f"adv_estimator={NAME} was called without verl's batch, so it has no log-probs.")
    from .advantages import advantages_of  # torch, and the mathematics: only where advantages are computed
    from .denominators import mark

    section = config.get(NAME) if hasattr(config, "get") else None
    advantages_NT = advantages_of(batch, token_level_rewards, response_mask, index, section)
    if "response_mask" in batch:
        advantages_NT = mark(advantages_NT, response_mask, batch["response_mask"])
    return advantages_NT, advantages_NT


def register(registry: ModuleType) -> None:
    """Make the estimator known to verl."""
    registry.register_adv_est(NAME)(estimator)


def give_batch(trainer: ModuleType) -> None:
    """Let the estimator see the batch, in a verl that does not pass it."""
    inner: Callable[..., Any] = trainer.compute_advantage
    if gives_batch(trainer):
        return

    @wraps(inner)
    def compute_advantage(data: Any, adv_estimator: Any, *args: Any, **kwargs: Any) -> Any:
        if adv_estimator != NAME:
            return inner(data, adv_estimator, *args, **kwargs)
        token = _batch.set(data.batch)
        try:
            return inner(data, adv_estimator, *args, **kwargs)
        finally:
            _batch.reset(token)

    trainer.compute_advantage = compute_advantage  # pyright: ignore[reportAttributeAccessIssue]
    for module in list(sys.modules.values()):  # those that were imported before this one was
        if getattr(module, "__name__", "").startswith("verl.") and vars(module).get("compute_advantage") is inner:
            module.compute_advantage = compute_advantage  # pyright: ignore[reportAttributeAccessIssue]


def count_known_rows(workers: ModuleType) -> None:
    """See `denominators`."""
    from .denominators import count_known_rows as patch

    patch(workers)


def add_columns(trainer: ModuleType) -> None:
    """See `dump`."""
    from .dump import add_columns as patch

    patch(trainer, NAME)


def gives_batch(trainer: ModuleType) -> bool:
    """Whether this verl gives its batch to an estimator that takes one: it is asked, with a batch of one token.

    Where it cannot be asked in this way, the answer is no. To be patched does no harm to a verl that gives it.
    """
    import torch

    seen: list[Any] = []

    def probe(token_level_rewards: Any, response_mask: Any, batch: Any = None, **others: Any) -> tuple[Any, Any]:
        seen.append(batch)
        return token_level_rewards, token_level_rewards

    estimators: dict[str, Any] = {}
    try:
        one = {name: torch.ones(1, 1) for name in ("token_level_rewards", "response_mask", "old_log_probs")}
        data, estimators = trainer.DataProto.from_single_dict(one), trainer.core_algos.ADV_ESTIMATOR_REGISTRY
        estimators["lampo_probe"] = probe
        trainer.compute_advantage(data, adv_estimator="lampo_probe")
    except Exception as error:
        logger.debug("verl could not be asked whether it gives the batch: %s: %s", type(error).__name__, error)
    finally:
        estimators.pop("lampo_probe", None)
    return bool(seen) and seen[0] is not None


class _AfterImport(MetaPathFinder):
    """Has functions called with modules, once these are imported."""

    def __init__(self, then: dict[str, Callable[[ModuleType], None]]) -> None:
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib. The module is found and loaded as always."""
        then = self._then.get(fullname)
        if then is None:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]  # others may wait for the same module
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((each for each in found if each is not None), None)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _attempt(then, module)

        spec.loader.exec_module = exec_module
        return spec


def _attempt(then: Callable[[ModuleType], None], module: ModuleType) -> None:
    """verl logs what fails in a plugin where nobody looks. It is told here, and raised where the estimator is asked for."""
    try:
        then(module)
    except Exception as error:
        message = f"This verl has moved what LamPO relies on in {module.__name__}: {type(error).__name__}: {error}."
        _refusals.append(message)
        logger.warning("adv_estimator=%s cannot be used. %s", NAME, message)


def install() -> None:
    """Wait for verl's modules, or take them where they are already imported. A second call changes nothing."""
    wanted = {REGISTRY: register, TRAINER: give_batch, WORKERS: count_known_rows, ROLLOUTS: add_columns}
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(wanted))
        for name, then in wanted.items():
            if name in sys.modules:
                _attempt(then, sys.modules[name])


install()
