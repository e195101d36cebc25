"""TRL's settings and four of ours, and which of TRL's cannot work beside an advantage of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from ...algo.registry import EstimatorOptions
from ...types import LampoError
from ..estimators import check_scores_from, chosen_estimator, reads_logprobs

MEAN_OVER_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")
"""TRL's losses that are divided by a number of rows, which counts those that have no reward."""
SUM_OVER_TOKENS = ("dapo", "cispo", "vespo", "bnpo")
"""TRL's losses that are divided by a number of tokens; a row whose mask is empty has none."""

# What `generation_kwargs` may hold without changing the distribution that tokens are drawn from.
HARMLESS_GENERATION = {
    "max_new_tokens", "max_tokens", "max_length", "stop", "stop_strings", "stop_token_ids", "eos_token_id", "pad_token_id",
    "bos_token_id", "use_cache", "cache_implementation", "seed", "tokenizer", "disable_compile",
}  # fmt: skip


@dataclass
class LamPOConfig(GRPOConfig):
    """`GRPOConfig` with an advantage of LamPO's registry. Every setting of TRL keeps its meaning, or is refused with the reason.

    Its settings are dataclass fields, so they can be given in Python, in a YAML file and on the command line of TRL's own scripts.
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "advantage_options"]  # noqa: RUF012

    advantage: str = field(
        default="pairwise",
        metadata={
            "help": "Name of the advantage: pairwise is LamPO's. Also grpo, rloo, reinforce_pp, and python:module.function for your own."
        },
    )
    advantage_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Settings of the advantage, such as {'weight': 'winner'}. They are those of the section `advantage` of a recipe."
        },
    )
    scores_from: str = field(
        default="trainer",
        metadata={
            "help": "Whose log-probs the advantage weighs pairs with. trainer: the model that learns. sampler: vLLM, or a rollout_func."
        },
    )
    mismatch_tolerance: float = field(
        default=0.1,
        metadata={
            "help": "Warn when the log-probs of trainer and sampler make advantages that differ by more than this share of their size."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(self)

    def estimator(self) -> EstimatorOptions:
        """The advantage and its settings.

        Raises:
            LampoError: there is no such advantage, it has no such setting, or TRL cannot give it what it needs.
        """
        settings = self.advantage_options or {}
        if not isinstance(settings, dict):
            raise LampoError(
                f"advantage_options must be settings by name, such as {{'weight': 'winner'}}; not {settings!r}."
            )
        return chosen_estimator(
            self.advantage, settings, name_key="advantage", options_key="advantage_options", trainer="TRL"
        )


def refuse(config: LamPOConfig) -> None:
    """Refuse settings of TRL that would be ignored, or that would make the advantages something else than they say.

    Raises:
        LampoError: names the setting, the reason and what to do.
    """
    options = config.estimator()
    check_scores_from(config.scores_from, "scores_from")
    if config.scale_rewards != "group":
        raise LampoError(
            f"scale_rewards={config.scale_rewards!r} is a setting of TRL's own advantage, which is not used here. "
            f"{_scale_of(config.advantage)}"
        )
    if config.multi_objective_aggregation != "sum_then_normalize":
        raise LampoError(
            f"multi_objective_aggregation={config.multi_objective_aggregation!r} is a setting of TRL's own advantage. "
            "LamPO compares the weighted sums of the rewards."
        )
    if config.loss_type not in MEAN_OVER_ROWS + SUM_OVER_TOKENS:
        raise LampoError(
            f"loss_type={config.loss_type!r} is unknown to this LamPO, so it cannot keep rows without a reward out of its denominator. "
            f"Known: {', '.join(MEAN_OVER_ROWS + SUM_OVER_TOKENS)}."
        )
    if config.use_liger_kernel and hasattr(GRPOTrainer, "compute_liger_loss"):
        raise LampoError(
            "use_liger_kernel=True replaces the loss in this TRL by one that counts rows without a reward. Leave it out, or use TRL 1.16."
        )
    if reads_logprobs(options) and config.scores_from == "trainer" and (changed := changes_of_sampling(config)):
        raise LampoError(
            f"{', '.join(changed)} changes the distribution that tokens are drawn from, and the trainer's log-probs do not follow. "
            f"The advantage {config.advantage} would weigh pairs by other probabilities than those sampled with. "
            "Leave it out. With vLLM, scores_from='sampler' takes the log-probs that were sampled with."
        )


def changes_of_sampling(config: GRPOConfig) -> list[str]:
    """Settings under which tokens are not drawn from the softmax of the logits over the temperature."""
    changed = [
        f"{name}={value}"
        for name, value, neutral in (
            ("top_p", config.top_p, (None, 1.0)),
            ("top_k", config.top_k, (None, 0, -1)),
            ("min_p", config.min_p, (None, 0.0)),
            ("repetition_penalty", config.repetition_penalty, (None, 1.0)),
        )
        if value not in neutral
    ]
    extra = config.generation_kwargs or {}
    return changed + [f"generation_kwargs[{name!r}]" for name in extra if name not in HARMLESS_GENERATION]


def _scale_of(advantage: str) -> str:
    return {
        "pairwise": "Set advantage_options={'scale': 'none'} to leave the standard deviation out.",
        "grpo": "Set advantage_options={'std': False} to leave the standard deviation out.",
    }.get(advantage, "Set the scale in advantage_options.")
