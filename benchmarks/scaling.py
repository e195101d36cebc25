"""Seconds and memory of a step's parts over the group size, the length, the vocabulary and the number of rows.

    python benchmarks/scaling.py [--picture benchmarks/scaling.png] [--threads 1]

One of the four changes at a time; the others stay at 64 rows in groups of 8, 64 tokens, 512 words. A small Qwen3 with random weights (3
layers of 96) samples completions of exactly that length, then the pairwise advantages of all groups, then the update. Each point is a
process of its own. Seconds are the processor's, memory is what the process grew by at its peak. One run of each, so a tenth is noise.
The last columns say how the sum of the seconds and the larger memory grow, from the point before, for each doubling of what changes: 2 is
linear. --picture needs a Chromium.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from forced import forced_sampler
from learner import MIB, QUICKSTART, NoStep, peak_bytes

from lampo.algo.estimate import estimate_advantages
from lampo.config.load import parse_config
from lampo.learner.batch import collate
from lampo.learner.budget import tokens_per_microbatch
from lampo.model.policy import Policy
from lampo.rollout.native import NativeSampler
from lampo.train.loop import update
from lampo.types import Group, Problem, Reward, Verdict

PROMPT = 12


@dataclass(frozen=True)
class Point:
    """How much there is to do."""

    rows: int = 64
    group: int = 8
    length: int = 64
    vocabulary: int = 512


AXES = {
    "group": ("rollouts of a problem, of 256 rows", [2, 16, 64, 256]),
    "length": ("tokens of a completion", [32, 128, 512, 1024]),
    "vocabulary": ("words", [128, 2048, 8192, 20_000]),
    "rows": ("rollouts of a step", [16, 64, 256, 512]),
}


@dataclass(frozen=True)
class Found:
    """Processor seconds and MiB of a point."""

    sample: float
    advantage: float
    update: float
    sample_mib: float
    update_mib: float

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return self.sample + self.advantage + self.update

    @property
    def mib(self) -> float:
        """Of the part that needs most."""
        return max(self.sample_mib, self.update_mib)


def timed(part: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, its processor seconds, its MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, _ = peak_bytes()
    begin = time.process_time()
    said = part()
    return said, time.process_time() - begin, (peak_bytes()[1] - before) / MIB


def measure(point: Point, threads: int) -> Found:
    """One point, in a fresh process."""
    torch.set_num_threads(threads)
    words = "".join(map(chr, range(0x4E00, 0x4E00 + point.vocabulary)))
    shape = dict(QUICKSTART.config or {}) | {"max_position_embeddings": 4096}
    values = {
        "run": {"name": "scaling"},
        "model": {"config": shape, "characters": words, "device": "cpu"},
        "task": {"name": "arithmetic"},
        "sampling": {"max_new_tokens": point.length},
        "method": "lampo",
    }
    config = parse_config(values, "scaling.py")
    policy = Policy.load(config.model, seed=0)
    chosen = {"tokens_per_microbatch": tokens_per_microbatch(policy.model, config)}
    config = config.model_copy(update={"training": config.training.model_copy(update=chosen)})
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(3, 3 + point.vocabulary, (PROMPT,), generator=generator) for _ in range(point.rows // point.group)
    ]
    sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=point.length, rows_at_once=point.rows)
    end_id = policy.end_ids[0]
    with forced_sampler(torch.full((point.rows,), point.length), end_id, end_id + 3):
        sampler.sample(prompts[:1], 1, seed=0)  # warms up
    with forced_sampler(torch.full((point.rows,), point.length), end_id, end_id + 3):
        rollouts_PG, sample, sample_mib = timed(lambda: sampler.sample(prompts, point.group, seed=0))
    groups = []
    for number, rollouts in enumerate(rollouts_PG):
        rewards = tuple(Reward({}, float(torch.rand((), generator=generator))) for _ in rollouts)
        verdicts = (Verdict("right"),) * len(rollouts)
        groups.append(Group(Problem(id=str(number), prompt="?", answer="1"), tuple(rollouts), verdicts, rewards))
    estimate, advantage, _ = timed(lambda: estimate_advantages(groups, config.advantage))

    def learn() -> None:
        batch = collate(groups, estimate.token_advantages, keep_all=False)
        update(policy, NoStep(), batch, config, 1)  # pyright: ignore[reportArgumentType]

    for parameter in policy.trainable_parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    _, learned, update_mib = timed(learn)
    return Found(sample, advantage, learned, sample_mib, update_mib)


def points(axis: str) -> list[Point]:
    """Those along one axis."""
    start = Point(rows=256) if axis == "group" else Point()
    return [replace(start, **{axis: value}) for value in AXES[axis][1]]


def draw(found: dict[str, list[Found]], picture: Path) -> None:
    """Seconds above, memory below, a column for each axis; all logarithmic, so that linear growth is a slope of 1."""
    from plotly.subplots import make_subplots

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.pictures import browse
    from lampo.view.charts import BLUE, GREEN, VERMILLION

    titles = [title for title, _ in AXES.values()]
    chart = make_subplots(rows=2, cols=len(AXES), shared_xaxes=True, shared_yaxes=True, vertical_spacing=0.06)
    lines = [
        ("sampling", BLUE, "sample", 1),
        ("advantages", GREEN, "advantage", 1),
        ("update", VERMILLION, "update", 1),
        ("sampling", BLUE, "sample_mib", 2),
        ("update", VERMILLION, "update_mib", 2),
    ]
    for column, (axis, each) in enumerate(found.items(), start=1):
        for name, colour, field, row in lines:
            chart.add_scatter(
                x=AXES[axis][1],
                y=[max(1e-4, getattr(point, field)) for point in each],
                name=name,
                line_color=colour,
                mode="lines+markers",
                showlegend=column == 1 and row == 1,
                row=row,
                col=column,
            )
        chart.update_xaxes(type="log", tickvals=AXES[axis][1], col=column)
        chart.update_xaxes(title=titles[column - 1], row=2, col=column)
    chart.update_yaxes(type="log", dtick=1, exponentformat="power")
    chart.update_yaxes(title="processor seconds", row=1, col=1)
    chart.update_yaxes(title="MiB", row=2, col=1)
    chart.update_layout(
        width=1200, height=560, template="simple_white", legend={"orientation": "h", "y": 1.1}, margin={"t": 40}
    )
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "scaling.html"
        page.write_text(chart.to_html(include_plotlyjs=True, config={"staticPlot": True}), encoding="utf-8")
        browse(page.as_uri(), f"--screenshot={picture.absolute()}", "--window-size=1220,580")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.threads < 1:
        parser.error("every number must be at least 1")
    print(
        "| axis | value | sampling, s | advantages, s | update, s | sampling, MiB | update, MiB | time x | memory x |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    found: dict[str, list[Found]] = {}
    context = multiprocessing.get_context("fork")
    for axis, (_, values) in AXES.items():
        for value, point in zip(values, points(axis), strict=True):
            with context.Pool(1) as process:
                now = process.apply(measure, (point, options.threads))
            before = found.setdefault(axis, [])
            growth = ["", ""]
            if before:
                doublings = math.log2(value / values[len(before) - 1])
                ratios = now.seconds / before[-1].seconds, max(1, now.mib) / max(1, before[-1].mib)
                growth = [f"{ratio ** (1 / doublings):.2f}" for ratio in ratios]
            before.append(now)
            numbers = [f"{now.sample:.2f}", f"{now.advantage:.4f}", f"{now.update:.2f}"]
            cells = [axis, f"{value:,}", *numbers, f"{now.sample_mib:.0f}", f"{now.update_mib:.0f}", *growth]
            print(f"| {' | '.join(cells)} |", flush=True)
    if options.picture is not None:
        draw(found, options.picture)
        print(f"\n{options.picture}")


if __name__ == "__main__":
    main()
