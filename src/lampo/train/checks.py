"""What is checked before the first step: problems, their answers, and whether the model can take them. A dry run is these alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from ..config.schema import TrainConfig
from ..learner.answer_likelihood import refuse_unfit_answers
from ..model.prompts import Reader, measured_less_exactly, refuse_long_prompts, refuse_unknown_characters
from ..rewards import LikelihoodReward, RougeLReward, VerifierReward
from ..tasks.check import check_answers
from ..tasks.load import load_benchmark, load_task
from ..tasks.task import Task
from ..types import LampoError, Problem
from ..verify import VerifierPool, prepare_verifiers
from .own_functions import try_own_functions


@dataclass(frozen=True, slots=True)
class Problems:
    """The problems of a run: its task, and by name the benchmarks that it is measured on."""

    task: Task
    benchmarks: dict[str, Sequence[Problem]]

    @property
    def own(self) -> list[Problem]:
        """Those of the task, to train on and held out."""
        return [*self.task.train, *self.task.heldout]

    @property
    def by_name(self) -> dict[str, Sequence[Problem]]:
        """Each set of them by what it is for."""
        return {"train": self.task.train, "heldout": self.task.heldout, **self.benchmarks}

    @property
    def others(self) -> list[Problem]:
        """Those of the benchmarks."""
        return [*chain.from_iterable(self.benchmarks.values())]


def load_problems(config: TrainConfig) -> Problems:
    """Task and benchmarks.

    Raises:
        LampoError: one cannot be read, or does not have what the recipe needs of it.
    """
    task = load_task(config.task, config.decontamination).for_training()
    evaluation = config.evaluation
    benchmarks = {name: load_benchmark(name, evaluation.data) for name in evaluation.benchmarks}
    if evaluation.skip >= len(task.heldout) > 0:
        raise LampoError(f"evaluation.skip is {evaluation.skip}, and there are {len(task.heldout)} held-out problems.")
    problems = Problems(task, benchmarks)
    prepare_verifiers([*problems.own, *problems.others], config.verifier)
    return problems


def check_problems(config: TrainConfig, problems: Problems, pool: VerifierPool, tell: Callable[[str], None]) -> int:
    """Check what does not need the model: answers, reference solutions, own functions, the alphabet of a tokenizer of characters.

    Args:
        config: the recipe.
        problems: what it needs.
        pool: verifies the answers against themselves.
        tell: hears of what is wrong with some problems and does not stop the run.

    Returns:
        How many answers were judged.

    Raises:
        LampoError: nothing could be learned, or the model could not write what it is shown.
    """
    answers = check_answers([*problems.own, *problems.others], config.verifier, pool.verify_all)
    if answers.failing:
        if answers.remedy and config.rewarded_by(VerifierReward):
            raise LampoError(str(answers))
        tell(str(answers))
    if not config.rewarded_by(VerifierReward) and not config.rewarded_by(LikelihoodReward):
        tell(
            "the rewards have no verifier: a right answer adds nothing to them. To reward it, add {name: verifier} to the list"
        )
    for reward in config.rewards:
        if reward.weight != 0:
            reward.prepare(problems.task.train)
    try_own_functions(config, problems.task.train, pool)
    if config.model.characters is not None:
        solved = config.warmstart.steps > 0 or config.rewarded_by(RougeLReward)
        refuse_unknown_characters(problems.own, config.prompt, config.model.characters, solutions=solved)
    return answers.num_checked


def check_prompts(config: TrainConfig, problems: Problems, reader: Reader, tell: Callable[[str], None]) -> None:
    """Check that prompts and responses fit into the model's context.

    Args:
        config: the recipe.
        problems: what it needs.
        reader: the policy, or the tokenizer of a model whose weights are not loaded.
        tell: hears of benchmarks that are measured less exactly.

    Raises:
        LampoError: some do not fit.
    """
    refuse_long_prompts(problems.own, reader, config.prompt, config.sampling.max_new_tokens)
    if complaint := measured_less_exactly(problems.others, reader, config.prompt, config.sampling.max_new_tokens):
        tell(complaint)
    if config.rewarded_by(LikelihoodReward):
        refuse_unfit_answers(problems.task.train, reader, config.sampling.max_new_tokens)
