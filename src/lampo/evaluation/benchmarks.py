"""Benchmarks as others run them: which prompt, which verifier, and whose practice that is."""

from __future__ import annotations

from dataclasses import dataclass

from ..verify import MathOptions, VerifierOptions

BOXED = "{prompt}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.".replace("{{}}", "{}")
LETTER = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n{prompt}"
)
BOXED_SOURCE = "the sentence that the model cards of Qwen3 and DeepSeek-R1 ask for in mathematics, and that Qwen2.5-Math's evaluation uses"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How a task is measured.

    Attributes:
        template: text around the problem, for which `{prompt}` stands.
        verifier: who decides. None leaves it to the problem.
        source: whose practice this is.
    """

    template: str = "{prompt}"
    verifier: VerifierOptions | None = None
    source: str = "the task's own text"


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark(BOXED, source=BOXED_SOURCE),
    "aime25": Benchmark(BOXED, source=BOXED_SOURCE),
    "math500": Benchmark(BOXED, source=BOXED_SOURCE),
    "math": Benchmark(BOXED, source=BOXED_SOURCE),
    "gsm8k": Benchmark(
        BOXED,
        MathOptions(last_number=True),
        source=f"{BOXED_SOURCE}. Where no value is boxed or said to be the answer, the last number as in lm-evaluation-harness' "
        "flexible-extract",
    ),
    "gpqa_diamond": Benchmark(
        LETTER, source="OpenAI's simple-evals (multiple choice), which lighteval takes over for GPQA"
    ),
}
"""By the name of the task. A task that is not here is asked as it is, and judged by its own verifier."""


def benchmark(name: str) -> Benchmark:
    """How the task of that name is measured."""
    return BENCHMARKS.get(name, Benchmark())
