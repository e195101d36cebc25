"""What happens to LamPO's pair weights when the policy that sampled is k updates older than the one that learns?

    python benchmarks/stale_scores.py [RECIPE] [--starts 10 60] [--lags 1 2 4 8 16 32] [--groups 256] [--seeds 3]

Trains the recipe and keeps its weights after each step. At each start it draws groups that training does not use, from the weights of
that step. Then it scores the same responses with the weights of k steps later. An engine that samples ahead has both scores at hand: those
of the sampling policy are stale, those of the learner are new. The table says how far they part.

| column | meaning |
|---|---|
| KL | of the sampling policy from the learner, nats a token: mean of exp(d) - 1 - d, where d is the difference of log-probs |
| weight moves | mean of abs(w_ij after - w_ij before), over pairs with different rewards |
| pairs turned | share of these pairs where the other response is now the likelier one |
| same direction | cosine of the advantages before and after, over all rows |
| size | norm of the advantages after over that before |
| concordance | in pairs with different rewards, how often the better response is the likelier one, by the learner's scores |
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lampo import process as _process  # noqa: F401  it must run before torch is imported
from lampo.algo.advantages.groups import concordance
from lampo.algo.advantages.pairwise import pairwise_advantages, pairwise_terms
from lampo.config.load import load_config
from lampo.config.recipes import find_recipe
from lampo.config.schema import TrainConfig
from lampo.learner.batch import Row, row_logprobs
from lampo.learner.budget import tokens_per_microbatch, with_tokens
from lampo.model.policy import load_policy
from lampo.rollout.build import native_sampler
from lampo.signal.run import Source
from lampo.train.checks import load_problems
from lampo.train.loop import train
from lampo.train.run import Run
from lampo.types import Group
from lampo.verify import VerifierPool
from lampo.view.console import Progress

COLUMNS = ("KL", "weight moves", "pairs turned", "same direction", "size", "concordance")


def trained(recipe: str, seed: int, last: int, settings: Sequence[str], folder: Path) -> tuple[TrainConfig, Path]:
    """A run that keeps the weights of every step."""
    every = ["run.checkpoint_every=1", "run.keep_checkpoints=1000000", "evaluation.final_problems=64"]
    config = load_config(
        find_recipe(Path(recipe)),
        [f"run.seed={seed}", f"run.name=seed-{seed}", f"run.folder={folder}", *every, *settings],
    )
    if last > config.training.steps:
        sys.exit(
            f"The last start and the longest lag are {last} steps together, and a run has {config.training.steps}."
        )
    run = Run.create(config)
    with Progress(run.path.name) as progress:
        train(run, progress)
    return config, run.path / "checkpoints"


def scored(config: TrainConfig, checkpoints: Path, step: int, groups: Sequence[Group]) -> list[list[Tensor]]:
    """Log-probs of the responses under the weights of that step."""
    policy = load_policy(config, checkpoints / f"train-{step:06}")
    rows = [
        Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 0.0, number, 0)
        for number, group in enumerate(groups)
        for rollout in group.rollouts_G
    ]
    flat = iter(row_logprobs(policy, rows, tokens_per_microbatch(policy.model, config)))
    return [[next(flat) for _ in group.rollouts_G] for group in groups]


def weights_of(rewards_G: Tensor, scores_G: Tensor) -> Tensor:
    """w_ij of the pairs whose rewards differ."""
    gaps_GG = rewards_G[:, None] - rewards_G
    return (pairwise_terms(rewards_G, scores_G, scale="none") / gaps_GG)[gaps_GG != 0]


def compared(
    groups: Sequence[Group], before: Sequence[Sequence[Tensor]], after: Sequence[Sequence[Tensor]]
) -> dict[str, float]:
    """The columns of the table for one lag."""
    moves, turned, ours, theirs = [], [], [], []
    for group, before_G, after_G in zip(groups, before, after, strict=True):
        rewards_G = torch.tensor([reward.total for reward in group.rewards_G])
        scores_G, new_G = (torch.stack([row.mean() for row in rows]) for rows in (before_G, after_G))
        weights, new_weights = weights_of(rewards_G, scores_G), weights_of(rewards_G, new_G)
        moves.append((new_weights - weights).abs())
        turned.append((weights > 0.5) != (new_weights > 0.5))
        one = torch.zeros(len(rewards_G), dtype=torch.int64)
        ours.append(pairwise_advantages(rewards_G, scores_G, one))
        theirs.append(pairwise_advantages(rewards_G, new_G, one))
    old, new = torch.cat(ours), torch.cat(theirs)
    rewards_N = torch.tensor([reward.total for group in groups for reward in group.rewards_G])
    ids_N = torch.tensor([number for number, group in enumerate(groups) for _ in group.rollouts_G])
    scores_N = torch.stack([row.mean() for rows in after for row in rows])
    differences = torch.cat(
        [a - b for before_G, after_G in zip(before, after, strict=True) for b, a in zip(before_G, after_G, strict=True)]
    )
    return {
        "KL": float((differences.exp() - 1 - differences).mean()),
        "weight moves": float(torch.cat(moves).mean()),
        "pairs turned": float(torch.cat(turned).float().mean()),
        "same direction": float(torch.nn.functional.cosine_similarity(old, new, dim=0)),
        "size": float(new.norm() / old.norm()),
        "concordance": float(concordance(rewards_N, scores_N, ids_N) or float("nan")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--starts", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--lags", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--groups", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    options = parser.parse_args()
    found: dict[tuple[int, int], list[dict[str, float]]] = defaultdict(list)
    mixed = 0
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder, VerifierPool() as pool:
            last = max(options.starts) + max(options.lags)
            config, checkpoints = trained(options.recipe, seed, last, options.settings, Path(folder))
            for start in options.starts:
                policy = load_policy(config, checkpoints / f"train-{start:06}")
                source_config = with_tokens(config, tokens_per_microbatch(policy.model, config))
                with Progress(f"drawing at step {start}") as progress:
                    sampler = native_sampler(policy, source_config)
                    problems = load_problems(config).task.train
                    source = Source(source_config, policy, sampler, problems, pool, progress)
                    groups: list[Group] = []
                    while len(groups) < options.groups:
                        groups += [sampled.group for sampled in source.step()]
                groups = [group for group in groups[: options.groups] if group.is_mixed]
                mixed += len(groups)
                before = scored(config, checkpoints, start, groups)
                for lag in (0, *options.lags):
                    after = scored(config, checkpoints, start + lag, groups)
                    found[start, lag].append(compared(groups, before, after))
    print(f"{mixed} groups with right and wrong responses, {options.seeds} seeds: means [least, most].")
    print("| drawn after step | updates later | " + " | ".join(COLUMNS) + " |\n" + "|---:" * (2 + len(COLUMNS)) + "|")
    for (start, lag), rows in found.items():
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in rows]
            cells.append(f"{sum(values) / len(values):.3f} [{min(values):.3f}, {max(values):.3f}]")
        print(f"| {start} | {lag} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
