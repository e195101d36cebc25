"""Which estimators are measured: those of this package by the names of their papers, the recipe's, and your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..algo.registry import AdvantageOptions, EstimatorOptions, ProcessRewardOptions
from ..config.explain import explain_errors
from ..config.methods import METHODS
from ..messages import did_you_mean
from ..options import OWN
from ..types import LampoError

BASELINE = "grpo"
"""What all others are compared with."""

CANDIDATES: dict[str, dict[str, Any]] = {
    "grpo": {"name": "grpo"},
    "grpo-0.36": {"name": "grpo", "negative": 0.36},
    "grpo-0": {"name": "grpo", "negative": 0.0},
    "dr_grpo": {"name": "grpo", "std": False},
    "rloo": {"name": "rloo"},
    "reinforce_pp": {"name": "reinforce_pp"},
    "reinforce_pp_baseline": {"name": "reinforce_pp", "baseline": "group"},
    "shrinkage": {"name": "shrinkage"},
    "maxrl": {"name": "maxrl"},
    "lampo": {"name": "pairwise"},
    "lampo-centred": {"name": "pairwise", "centred": True},
    "lampo-winner": {"name": "pairwise", "weight": "winner"},
    "lampo-better": {"name": "pairwise", "weight": "better"},
    "lampo-lambdarank": {"name": "pairwise", "weight": "lambdarank"},
    "opo": {"name": "pairwise", "weight": "uniform", "peer_weight": "length"},
    "optimal-baseline": {"name": "pairwise", "weight": "uniform", "peer_weight": "score_norm"},
    "otb": {"name": "otb"},
    "lampo_ob": {"name": "pairwise", "peer_weight": "score_norm"},
    "lampo_cal": METHODS["lampo_cal"].settings["advantage"],
}
"""Sections `advantage` of a recipe, by name. docs/signal.md says what each is."""


def candidates(own: EstimatorOptions, named: Sequence[str] = ()) -> dict[str, EstimatorOptions]:
    """All estimators to measure, by name, the baseline first.

    Args:
        own: that of the recipe; it is added where it is none of ours.
        named: further ones: methods by name, or python:module.function.

    Raises:
        LampoError: there is no such method, its advantage is another's, or it needs a model that learns beside the policy.
    """
    found = {name: _options(settings, name) for name, settings in CANDIDATES.items()}
    for name in named:
        if name.startswith(OWN):
            found[name.removeprefix(OWN)] = _options({"name": name}, name)
        elif name in METHODS:
            options = _of_method(name)
            alike = next((other for other, theirs in found.items() if theirs == options), None)
            if alike not in (None, name):
                raise LampoError(
                    f"The method {name} has the advantage of {alike}, which is measured. What else it changes is not: "
                    "to tell takes training (lampo compare)."
                )
            found[name] = options
        elif name not in found:
            known = [*METHODS, *CANDIDATES]
            raise LampoError(
                f"There is no method {name!r}.{did_you_mean(name, known)} Name one of {', '.join(dict.fromkeys(known))}, "
                f"or {OWN}module.function."
            )
    if not isinstance(own, ProcessRewardOptions) and own not in found.values():
        found["recipe"] = own
    return found


def _of_method(name: str) -> EstimatorOptions:
    if (settings := METHODS[name].settings.get("advantage")) is None:
        raise LampoError(f"The method {name} has no advantage: there is nothing to measure.")
    options = _options(settings, name)
    if isinstance(options, ProcessRewardOptions):
        raise LampoError(f"The method {name} learns a reward model beside the policy: its signal is not measured.")
    return options


def _options(settings: dict[str, Any], name: str) -> EstimatorOptions:
    try:
        return TypeAdapter(AdvantageOptions).validate_python(settings)
    except ValidationError as error:
        raise LampoError(f"The estimator {name} has settings that do not hold:\n{explain_errors(error)}") from None
