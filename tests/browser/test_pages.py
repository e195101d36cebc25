"""The report of a run and the page of a comparison in a real browser."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lampo.compare.comparison import compare_methods
from lampo.compare.comparison_page import write_comparison
from lampo.compare.results import Point, RunResult
from lampo.store.rollouts import write_shard
from lampo.view.report.report_page import write_report

from ..helpers.recorded_groups import group, groups_of, rollout
from .conftest import poke, script, until

DRAWN = "[...document.querySelectorAll('.plot')].filter(plot => plot.checkVisibility()).every(plot => plot.querySelector('.main-svg'))"


def records(reward: str = "format") -> list[dict[str, Any]]:
    """Metrics of a run of 30 steps, with every card and some that are folded away."""

    def evaluation(step: int, accuracy: float) -> dict[str, Any]:
        bounds = {"evaluation/low": accuracy - 0.05, "evaluation/high": accuracy + 0.05}
        return {"stage": "evaluation", "step": step, "evaluation/accuracy": accuracy, **bounds}

    def train(step: int) -> dict[str, Any]:
        return {
            "stage": "train",
            "step": step,
            "reward/total": step / 40,
            "reward/verifier": step / 50,
            f"reward/{reward}": 1 / step,
            "advantage/groups_without_spread": 1 / step,
            "rollouts/length_mean": 30 + step % 7,
            "rollouts/length_max": 60 + step % 11,
            "rollouts/truncated": 0.02 * (step % 3),
            "rollouts/tokens": 1000,
            "loss/entropy": 1 / step,
            "optimizer/gradient_norm": 0.5 + step % 3,
            "time/sample": 2.0,
            "time/update": 1.0 + step % 2,
            "time/total": 4.0,
        }

    return [evaluation(0, 0.25), *(train(step) for step in range(1, 31)), evaluation(30, 0.75)]


def new_run(folder: Path, metrics: list[dict[str, Any]], config: str, command: list[str]) -> Path:
    (folder / "rollouts").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    (folder / "config.yaml").write_text(config)
    (folder / "manifest.json").write_text(json.dumps({"command": command, "versions": {"torch": "2.13.0"}}))
    return folder


def test_a_report(tmp_path: Path, tab: Any, looks_right: Callable[[Any], None]) -> None:
    run = new_run(tmp_path / "sums", records(), "method: lampo\ntask: {name: sums}\n", ["lampo", "train", "x" * 300])
    long = group(30, "y" * 300, rollout("right", -0.1, text="z" * 20_000, extracted="w" * 200, detail="v" * 400))
    for step, made in ((1, groups_of(1)), (15, groups_of(15)), (30, [long, *groups_of(30)])):
        write_shard(run, step, made)
    page = tab(write_report(run).as_uri())
    until(page, DRAWN)
    assert page.locator(".plot").count() > page.locator(".plot:visible").count() == 5
    figures = page.locator("figure:visible h3").all_inner_texts()
    assert figures == ["Held-out accuracy", "Reward", "Groups without a gradient", "Completion length", "Entropy"]
    assert page.locator(".before-after strong").all_inner_texts() == ["25.0 %", "75.0 %", "+50.0"]
    page.locator("figure summary").first.click()
    assert page.locator("figure table").first.inner_text().split()[:1] == ["step"]
    for title in ("More curves", "What the model wrote", "How it was made"):
        page.locator("summary", has_text=title).click()
    until(page, DRAWN)  # those that were folded away too
    assert page.locator(".plot:visible").count() == page.locator(".plot").count()
    page.locator("summary", has_text="The other 1 rollouts").first.click()
    looks_right(page)


def test_no_script_in_a_report_runs(tmp_path: Path, tab: Any) -> None:
    name = "<img src=x onerror=ran('name')>"
    config = f"method: {json.dumps(script('method'))}\nmodel: {{path: {json.dumps(script('model'))}}}\n"
    metrics = [each | {f"reward/{script('flat')}": 0.5} for each in records(script("curve"))]
    run = new_run(tmp_path / name, metrics, config, ["lampo", script("command")])
    (run / "manifest.json").write_text(
        json.dumps({"command": ["lampo", script("command")], "config": {script("key"): script("value")}})
    )
    hostile = {
        "text": script("text"),
        "extracted": "<svg onload=ran()>",
        "detail": script("detail")[:150],
        "pieces": None,
    }
    made = group(1, script("id"), *(rollout(status, -0.3, **hostile) for status in ("right", "wrong", "unknown")))
    for each in made["rollouts"]:
        each["rewards"] = {script("reward"): 0.5}
    made["problem"] |= {"prompt": script("prompt"), "answer": script("answer"), "reference": script("reference")}
    write_shard(run, 1, [made])
    page = tab(write_report(run).as_uri())
    until(page, DRAWN)
    poke(page)
    until(page, DRAWN)
    shown = " ".join(page.locator("body").inner_text().split())
    assert shlex.quote(script("command")) in page.locator('[aria-label="Command"]').text_content()
    for place in (
        "method",
        "model",
        "text",
        "id",
        "prompt",
        "answer",
        "reference",
        "reward",
        "key",
        "value",
        "curve",
        "flat",
    ):
        assert " ".join(script(place).split()) in shown, place
    assert name in shown
    reward = page.locator("figure", has=page.locator("h3", has_text="Reward")).locator(".plot")
    reward.hover()
    page.wait_for_selector(".hoverlayer text")


FINALS = {"grpo": 0.5, "lampo": 0.6, "rloo": 0.5}


def results(methods: dict[str, float], task: str, error: str) -> list[RunResult]:
    def result(method: str, seed: int, **changes: Any) -> RunResult:
        points = tuple(
            Point(step, step * 100, step * 1000, step * 4, step * 2.0, accuracy, None, 9.0, 0.0, 100, 1)
            for step, accuracy in enumerate((0.1, 0.3, methods[method] + seed / 1000))
        )
        return replace(RunResult(task, method, seed, 1e-6, "test", "finished", "", 0.5, 0.0, points), **changes)

    tested = [result(method, seed) for method in methods for seed in range(7)]
    tested[9] = replace(tested[9], status="crashed", error=error, points=tested[9].points[:2])
    return [*tested, *(result([*methods][1], 0, phase="tuning", learning_rate=rate) for rate in (1e-6, 1e-5))]


def comparison(folder: Path, found: list[RunResult], **texts: str) -> Path:
    folder.mkdir()
    values = {"command": "lampo compare a.yaml", "study": "methods: [grpo]\n"} | texts
    compared = compare_methods(found, "grpo")
    return write_comparison(folder, compared, found, baseline="grpo", versions={values["command"]: "1"}, **values)


def lines(page: Any) -> list[str]:
    """The methods whose curves are drawn."""
    return page.evaluate(
        "document.querySelector('.curves').data.filter(t => t.meta.part === 'line').map(t => t.meta.method)"
    )


def test_a_comparison(tmp_path: Path, tab: Any, looks_right: Callable[[Any], None]) -> None:
    page = tab(comparison(tmp_path / "study", results(FINALS, "sums", ""), study="x" * 400).as_uri())
    until(page, DRAWN)
    axis = "document.querySelector('.curves').layout.xaxis.title.text"
    assert page.evaluate(axis) == "rollouts"
    for label in ("sampled tokens", "optimiser steps", "seconds of training", "rollouts"):
        page.get_by_text(label, exact=True).first.click()
        until(page, f"{axis} === {json.dumps(label)}")
    assert lines(page) == ["grpo", "lampo", "rloo"]
    page.get_by_role("button", name="lampo").click()
    until(page, "document.querySelector('.curves').data.every(trace => trace.meta.method !== 'lampo')")
    assert lines(page) == ["grpo", "rloo"]
    page.get_by_role("button", name="lampo").click()
    page.get_by_text("intervals", exact=True).click()
    until(page, "document.querySelector('.curves').data.every(trace => trace.meta.part !== 'interval')")
    until(page, "document.querySelector('.curves').data.some(trace => trace.meta.method === 'lampo')")
    looks_right(page)


def test_no_script_in_a_comparison_runs(tmp_path: Path, tab: Any) -> None:
    name, link = script("method"), "<a href=\"javascript:ran('link')\">m</a>"
    found = results({"grpo": 0.5, name: 0.6, link: 0.5}, script("task"), script("error"))
    other = results({"grpo": 0.5, name: 0.6}, script("other task"), "")
    folder = tmp_path / "<img src=x onerror=ran('folder')>"
    page = tab(comparison(folder, [*found, *other], command=script("command"), study=script("study")).as_uri())
    until(page, DRAWN)
    poke(page)
    shown = " ".join(page.locator("body").inner_text().split())
    for text in (name, link, script("task"), script("other task"), script("command"), script("study")):
        assert " ".join(text.split()) in shown
    assert link in page.locator(".plot").first.text_content()  # plotly has a markup of its own
    for plot in page.locator(".plot").all():
        plot.hover()
    for point in page.locator(".plot").first.locator("path.point").all():
        point.hover(force=True)
    page.wait_for_timeout(100)
    for at in range(page.locator(".plot a").count()):
        page.locator(".plot a").nth(at).click(force=True, no_wait_after=True)
