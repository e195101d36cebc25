"""Gradients of one batch of groups: ours, ours without shared prompts, and the way TRL's GRPOTrainer computes its log-probs.

    python benchmarks/update.py [RECIPE] [--prompt 60] [--completion 20] [--groups 8] [--group-size 8] [--repeats 3] [--threads 1]

The model and the tokens of a micro-batch are those of the recipe; without one, SmolLM2-135M's shape with random weights, and
2,048. Prompts and completions are random, these between half of their length and all of it. The contenders take turns; times
are medians. Their log-probs must agree.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from shape import CHARACTERS, SHAPE
from torch import Tensor
from trl.trainer.utils import selective_log_softmax

from lampo.config.load import load_config
from lampo.config.schema import ModelOptions
from lampo.learner.batch import Batch, Row
from lampo.model.policy import Policy
from lampo.rollout.decoder import left_pad
from lampo.types import LampoError, MicroBatch


def ours(policy: Policy, batch: Batch, budget: int) -> Tensor:
    return of(policy, batch.split(budget, share_prompts=policy.shares_prompts))


def whole_rows(policy: Policy, batch: Batch, budget: int) -> Tensor:
    parts = batch.split(budget)
    for part in parts:
        part.first_ids_N.copy_(torch.arange(len(part.first_ids_N)))  # as if no two prompts were alike
    return of(policy, parts)


def of(policy: Policy, parts: list[MicroBatch]) -> Tensor:
    total = torch.zeros(())
    for part in parts:
        logprobs_NT, _ = policy.token_logprobs(part, temperature=1.0)
        value = (logprobs_NT * part.advantages_NT).sum()
        value.backward()
        total += value.detach()
    return total


def trl(policy: Policy, batch: Batch, budget: int) -> Tensor:
    """`_get_per_token_logps_and_entropies` of TRL 1.16: prompts padded left, completions right, rows in their order, all logits."""
    prompt_ids, prompt_mask = left_pad([row.prompt_ids for row in batch.rows], 0)
    ids = torch.nn.utils.rnn.pad_sequence([row.completion_ids for row in batch.rows], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(row.completion_ids), dtype=torch.int64) for row in batch.rows], batch_first=True
    )
    input_ids, attention_mask = torch.cat([prompt_ids, ids], 1), torch.cat([prompt_mask, mask], 1)
    size, T, total = max(1, budget // input_ids.shape[1]), ids.shape[1], torch.zeros(())
    advantages = torch.tensor([row.advantage for row in batch.rows])
    policy.model.train()
    for start in range(0, len(input_ids), size):
        part = slice(start, start + size)
        logits = policy.model(
            input_ids=input_ids[part], attention_mask=attention_mask[part], logits_to_keep=T + 1, use_cache=False
        ).logits[:, :-1]
        logprobs = selective_log_softmax(logits, ids[part])
        value = (logprobs * mask[part] * advantages[part, None]).sum()
        value.backward()
        total += value.detach()
    policy.model.eval()
    return total


CONTENDERS: dict[str, Callable[[Policy, Batch, int], Tensor]] = {
    "ours": ours,
    "ours, whole rows": whole_rows,
    "TRL's way": trl,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?")
    defaults = {"prompt": 60, "completion": 20, "groups": 8, "group-size": 8, "repeats": 3, "threads": 1}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if min(getattr(options, name.replace("-", "_")) for name in defaults) < 1:
        parser.error("every number must be at least 1")
    torch.set_num_threads(options.threads)
    model = ModelOptions(config=SHAPE, characters=CHARACTERS, device="cpu", dtype="float32")
    budget = 2048
    if options.recipe is not None:
        try:
            config = load_config(options.recipe)
        except LampoError as error:
            parser.error(str(error))
        model, budget = config.model, config.training.tokens_per_microbatch
    policy = Policy.load(model, seed=0)
    generator = torch.Generator().manual_seed(0)

    def random_ids(length: int) -> Tensor:
        return torch.randint(3, 13, (length,), generator=generator)

    rows = []
    for group in range(options.groups):
        prompt = random_ids(options.prompt)
        for _ in range(options.group_size):
            length = int(torch.randint(options.completion // 2, options.completion + 1, (), generator=generator))
            advantage = float(torch.randn((), generator=generator))
            rows.append(Row(prompt, random_ids(length), torch.zeros(length), advantage, group))
    batch = Batch.numbered(rows)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repeats):
        values = {}
        for name, contender in CONTENDERS.items():
            policy.model.zero_grad()
            begin = time.perf_counter()
            values[name] = float(contender(policy, batch, budget))
            seconds[name].append(time.perf_counter() - begin)
        assert max(values.values()) - min(values.values()) < 1e-3 * max(map(abs, values.values())), values
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print("| contender | seconds | times ours |\n| --- | ---: | ---: |")
    for name, median in medians.items():
        ratios = [time / ours for time, ours in zip(seconds[name], seconds["ours"], strict=True)]
        print(f"| {name} | {median:.2f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
