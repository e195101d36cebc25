"""The charts of `report.html`: their metrics, what is drawn and what good looks like. `report_page.py` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..charts import BLUE, GREEN, GREY, PURPLE, VERMILLION


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric on a chart."""

    key: str
    label: str
    colour: str = BLUE


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page.

    Attributes:
        meaning: what is drawn.
        curves: the metrics of it.
        good: what good looks like, in one line; charts that are folded away have none.
        every: beside `curves`, all metrics whose names begin with this are drawn, under the rest of their names.
        also: a share that is told in words: its mean over the last steps.
        unit: a d3 and Python format alike.
        noise: values up to this size are rounding errors.
    """

    title: str
    meaning: str
    curves: tuple[Curve, ...]
    good: str = ""
    every: str = ""
    also: Curve | None = None
    unit: str = ".3g"
    kind: Literal["lines", "stacked", "interval"] = "lines"
    stage: str = "train"
    noise: float = 0.0


CARDS = (
    Chart(
        "Held-out accuracy",
        "On problems that are never trained on, with its 95\N{NO-BREAK SPACE}% interval. Step 0 is before training.",
        (
            Curve("evaluation/accuracy", "sampled responses", BLUE),
            Curve("evaluation/greedy/accuracy", "most likely response", VERMILLION),
        ),
        good="Good: it rises, and the last interval lies above the first.",
        unit=".1%",
        kind="interval",
        stage="evaluation",
    ),
    Chart(
        "Reward",
        "Mean over the rollouts of a step.",
        (Curve("reward/total", "total", BLUE),),
        good="Good: it rises together with the accuracy. Where it rises alone, suspect the reward.",
        every="reward/",
    ),
    Chart(
        "Groups without a gradient",
        "Share of groups whose rewards are all equal. They teach nothing.",
        (Curve("advantage/groups_without_spread", "groups"),),
        good="Good: well below 100 %. Near it the problems are too easy or too hard.",
        unit=".1%",
    ),
    Chart(
        "Completion length",
        "Tokens a rollout.",
        (Curve("rollouts/length_mean", "mean", BLUE), Curve("rollouts/length_max", "longest", VERMILLION)),
        good="Good: steady, or growing with the accuracy, and few rollouts are cut.",
        also=Curve("rollouts/truncated", "Cut at the length limit"),
        unit=".4g",
    ),
    Chart(
        "Entropy",
        "Nats a token: how undecided the policy is.",
        (Curve("loss/entropy", "entropy"),),
        good="Good: it falls slowly. Near 0 the policy has stopped exploring.",
    ),
)

MORE_CHARTS = (
    Chart(
        "Cut and unknown",
        "Share of rollouts cut at the length limit, and of those the verifier could not judge.",
        (Curve("rollouts/truncated", "cut", BLUE), Curve("rollouts/unknown", "unknown", VERMILLION)),
        unit=".1%",
    ),
    Chart(
        "Rows without a gradient",
        "Share of rollouts whose advantage is 0.",
        (Curve("advantage/rows_without_gradient", "rows"),),
        unit=".1%",
    ),
    Chart(
        "Is the better one likelier?",
        "How often it is, of two responses of a group with different rewards. At 50 % confidence says nothing of what is right. "
        "LamPO's weight pushes groups up as a whole where it is above that, and down where it is below.",
        (Curve("advantage/concordance", "concordance"),),
        unit=".1%",
    ),
    Chart(
        "Slope of the confidence",
        "How much a gap of two scores says about their rewards, fitted in each step. 0: nothing, and no confidence. "
        "1: as much as LamPO assumes.",
        (Curve("advantage/slope", "slope"),),
    ),
    Chart(
        "Saturation of the pair weights",
        "Share of pairs whose scores differ by over five temperatures: their weights no longer change.",
        (Curve("advantage/saturation", "saturated pairs"),),
        unit=".1%",
    ),
    Chart(
        "Clipped tokens",
        "Share of tokens whose probability ratio left the clip range below or above.",
        (Curve("loss/clip_fraction_low", "below", BLUE), Curve("loss/clip_fraction_high", "above", VERMILLION)),
        unit=".2%",
    ),
    Chart(
        "KL divergence",
        "Nats a token, from the policy that sampled and from the reference.",
        (Curve("loss/kl_old", "sampling policy", BLUE), Curve("loss/kl_ref", "reference", VERMILLION)),
        noise=1e-6,
    ),
    Chart(
        "Mismatch of sampler and learner",
        "Nats a token by which the log-probs of vLLM and of the learner differ, for the tokens that were drawn.",
        (
            Curve("sampler/mismatch_mean", "mean", BLUE),
            Curve("sampler/mismatch_max", "largest", VERMILLION),
            Curve("sampler/kl", "KL divergence", GREEN),
        ),
    ),
    Chart(
        "Importance weights",
        "Mean weight of a token, from the sampler's distribution to the learner's.",
        (Curve("loss/importance_weight", "weight"),),
        also=Curve("loss/importance_capped", "At the cap"),
    ),
    Chart("Gradient norm", "Before clipping.", (Curve("optimizer/gradient_norm", "norm"),)),
    Chart("Learning rate", "As scheduled.", (Curve("optimizer/learning_rate", "learning rate"),)),
    Chart(
        "Time a step",
        "Seconds, by what they were spent on.",
        (
            Curve("time/sample", "sample", BLUE),
            Curve("time/verify", "verify", GREY),
            Curve("time/score", "score", VERMILLION),
            Curve("time/update", "update", GREEN),
            Curve("time/evaluate", "evaluate", PURPLE),
        ),
        kind="stacked",
    ),
    Chart(
        "Tokens per second",
        "Sampled tokens over the time of a step.",
        (Curve("time/tokens_per_s", "tokens/s"),),
        unit=".4g",
    ),
    Chart(
        "Memory",
        "Peak of the accelerator, or of the process where there is none, in GiB.",
        (Curve("memory/peak_gib", "peak"),),
    ),
    Chart("Warm-start loss", "Before the first rollout.", (Curve("loss/value", "loss"),), stage="warmstart"),
)
