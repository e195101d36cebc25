"""The advantage that another trainer's settings name, and whether it needs log-probabilities: the same questions in every adapter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from ..algo.registry import ESTIMATORS, AdvantageOptions, EstimatorOptions, ProcessRewardOptions
from ..options import OWN
from ..types import LampoError, LogprobSource


def chosen_estimator(
    name: str, options: Mapping[str, Any], *, name_key: str, options_key: str, trainer: str
) -> EstimatorOptions:
    """An advantage by its name, with settings.

    Args:
        name: of the advantage, or python:module.function.
        options: its settings.
        name_key: what the trainer's settings call the name.
        options_key: what they call the section of its settings.
        trainer: the trainer, as messages name it.

    Raises:
        LampoError: there is no such advantage, it has no such setting, or another trainer cannot have it.
    """
    try:
        chosen: EstimatorOptions = TypeAdapter(AdvantageOptions).validate_python({"name": name, **options})
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "union_tag_invalid":
            known = ", ".join(known for known in ESTIMATORS if known not in ("python", "prime"))
            raise LampoError(
                f"There is no advantage {name!r} ({name_key}). Known: {known}, and {OWN}module.function."
            ) from None
        where = ".".join(map(str, first["loc"][1:]))
        raise LampoError(f"{options_key}.{where}: {first['msg']} (advantage {name}).") from None
    if isinstance(chosen, ProcessRewardOptions):
        raise LampoError(
            f"The advantage {name} learns a process reward model beside the policy, which {trainer} does not train. "
            "Use `lampo train` for it."
        )
    return chosen


def check_scores_from(value: str, key: str) -> None:
    """Refuse what is no source of log-probabilities.

    Raises:
        LampoError: it is none.
    """
    known = get_args(LogprobSource)
    if value not in known:
        raise LampoError(f"{key} must be one of {', '.join(known)}; not {value!r}.")


def reads_logprobs(options: EstimatorOptions) -> bool:
    """Whether an estimator asks for log-probabilities, by itself or in the rollouts. Those that do not cost no forward pass."""
    parameters = inspect.signature(options.load()).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_all or not {"scores_N", "rollouts_N"}.isdisjoint(parameters)
