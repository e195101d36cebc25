import base64
import gzip
import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from lampo.store.metrics import read_metrics, summary
from lampo.store.rollouts import read_groups, rollout_steps
from lampo.types import LampoError
from lampo.view.report.chart_list import CARDS
from lampo.view.report.report_page import (
    POINTS_A_CURVE,
    TEXT_HEAD,
    _extremes,
    _moving_average,
    _shortened,
    _thinned,
    write_report,
)

from ...helpers.parsed_page import Page

HOSTILE = "</pre><script>alert('1 < 2')</script> & so on"


def evaluation(step: int, accuracy: float, length: float) -> dict:
    interval = {"evaluation/low": accuracy - 0.05, "evaluation/high": accuracy + 0.05}
    return {
        "stage": "evaluation",
        "step": step,
        "evaluation/accuracy": accuracy,
        "evaluation/length_mean": length,
    } | interval


def train(step: int) -> dict:
    return {
        "stage": "train",
        "step": step,
        "reward/total": step / 10,
        "reward/correctness": step / 10,
        "rollouts/tokens": 1000,
        "loss/entropy": float("nan") if step == 2 else 0.5 - step / 100,
        "time/sample": 2.0,
        "time/total": 3.0,
    }


def rollout(status: str, total: float, text: str) -> dict:
    correctness = {"right": 1.0, "wrong": 0.0, "unknown": None}[status]
    parts = {"correctness": correctness, "rouge_l": None, "total": total if status != "unknown" else None}
    made_of_it = {"score": -0.5, "advantage": 0.25, "length": 7, "finished": status != "unknown"}
    return {"text": text, "status": status, "extracted": "4", "detail": ""} | parts | made_of_it


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "sums & more"
    (run / "rollouts").mkdir(parents=True)
    records = [evaluation(0, 0.25, 20.0), *(train(step) for step in range(1, 6)), evaluation(5, 0.75, 12.0)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"stage": "trai')
    (run / "config.yaml").write_text("task: {name: <sums>}\n")
    manifest = {"command": ["lampo", "train", "a b.yaml"], "git_commit": None, "versions": {"torch": "2.13.0"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    problem = {"id": "p1", "prompt": "2 + 2 < ?", "answer": "4", "reference": "It is 4."}
    for step in range(1, 6):
        flat = {"step": step, "problem": problem | {"id": "flat"}, "rollouts": [rollout("wrong", 0.0, "flat text")] * 2}
        mixed = [rollout("unknown", 0.0, "nobody knows"), rollout("wrong", 0.0, "five"), rollout("right", 1.0, HOSTILE)]
        lines = [flat, {"step": step, "problem": problem, "rollouts": mixed}]
        with gzip.open(run / "rollouts" / f"{step:06d}.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_page_brings_plotly_packed_and_whole(run: Path) -> None:
    scripts = Page(write_report(run)).of("script")
    packed = next(text for text in scripts if text.startswith("H4sI"))  # gzip in base64
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert sum(map(len, scripts)) < 0.5 * len(get_plotlyjs())


def test_a_half_written_last_line_is_left_out(run: Path):
    metrics = read_metrics(run)
    assert [(record["stage"], record["step"]) for record in metrics] == [
        ("evaluation", 0),
        *(("train", step) for step in range(1, 6)),
        ("evaluation", 5),
    ]


def test_a_broken_line_in_the_middle_is_refused_by_its_number(run: Path):
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n" + json.dumps(train(6)) + "\n")
    with pytest.raises(LampoError, match="line 8"):
        read_metrics(run)


def test_a_step_done_again_after_a_resume_counts_once(run: Path):
    lines = [train(1), train(2), train(1) | {"reward/total": 9.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(record["step"], record["reward/total"]) for record in read_metrics(run)] == [(1, 9.0), (2, 0.2)]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(LampoError, match=r"metrics\.jsonl does not exist"):
        read_metrics(tmp_path)
    assert rollout_steps(tmp_path) == []
    with pytest.raises(LampoError, match="rollouts of step 3 were not kept"):
        read_groups(tmp_path, 3)


def test_a_truncated_file_of_rollouts_is_refused(run: Path):
    path = run / "rollouts" / "000002.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(LampoError, match="cut short"):
        read_groups(run, 2)
    assert rollout_steps(run) == [1, 2, 3, 4, 5]


def test_the_summary_compares_step_0_with_the_last_evaluation(run: Path):
    accuracy, length, step = summary(read_metrics(run))
    assert (accuracy.before, accuracy.after) == ("25.0 % [20.0, 30.0]", "75.0 % [70.0, 80.0]")
    assert accuracy.change == "+50.0 points"
    assert (length.before, length.after, length.change) == ("20.0 tokens", "12.0 tokens", "-8.0 tokens")
    assert (step.before, step.after) == ("0", "5")


def test_the_summary_of_a_run_that_was_not_evaluated_twice():
    assert summary([train(1)]) == []
    (before_only, *_) = summary([evaluation(0, 0.5, 1.0)])
    assert (before_only.before, before_only.after, before_only.change) == ("50.0 % [45.0, 55.0]", "", "")
    (after_only, *_) = summary([evaluation(4, 0.5, 1.0)])
    assert (after_only.before, after_only.after, after_only.change) == ("", "50.0 % [45.0, 55.0]", "")


def test_the_page_loads_nothing(run: Path):
    page = Page(write_report(run))
    assert [entry for entry in page.attributes if entry[1] in ("src", "href", "srcset", "data")] == []
    (policy,) = [value for _, key, value in page.attributes if key == "content" and "default-src" in value]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    style = "".join(page.of("style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert [path.name for path in run.iterdir() if "partial" in path.name] == []


def test_the_page_shows_texts_as_texts(run: Path):
    path = write_report(run)
    page = Page(path)
    assert page.of("pre").count(HOSTILE) == 3
    assert HOSTILE not in path.read_text(encoding="utf-8")
    assert page.of("h1") == ["sums & more"]
    assert "lampo train 'a b.yaml'" in page.of("pre")
    assert "task: {name: <sums>}" in page.of("pre")
    assert page.of("dt")[-1] == "torch"


def test_the_page_shows_first_middle_and_last_step_and_the_group_with_spread_first(run: Path):
    page = Page(write_report(run))
    assert [heading for heading in page.of("h3") if heading.startswith("Step")] == ["Step 1", "Step 3", "Step 5"]
    problems = [label for label in page.of("p") if label.startswith("Problem")]
    assert problems == ["Problem p1 · 1 of 3 right", "Problem flat · 0 of 2 right"] * 3
    texts = page.of("pre")
    best = texts.index(HOSTILE)
    assert texts[best : best + 3] == [HOSTILE, "five", "nobody knows"]  # best, worst, and in the rest the unknown


def test_rewards_of_a_likelihood_count_without_a_verdict(run: Path):
    rollouts = [
        rollout("unknown", 0.0, text) | {"total": total, "likelihood": total}
        for text, total in (("dull", 0.1), ("apt", 0.8))
    ]
    with gzip.open(run / "rollouts" / "000005.jsonl.gz", "wt") as file:
        file.write(
            json.dumps({"step": 5, "problem": {"id": "p1", "prompt": "?", "answer": "4"}, "rollouts": rollouts}) + "\n"
        )
    page = Page(write_report(run))
    assert [text for text in page.of("pre") if text in ("apt", "dull")] == ["apt", "dull"]
    assert page.of("strong")[-2:] == ["Best", "Worst"]


def test_curves_without_data_are_left_out_and_bad_values_skipped(run: Path):
    page = Page(write_report(run))
    titles = [heading for heading in page.of("h3") if not heading.startswith("Step")]
    assert titles == ["Held-out accuracy", "Reward", "Entropy", "Time a step"]
    accuracy, reward, entropy, _ = figures(page)
    assert [trace["name"] for trace in reward["data"]] == ["total"]  # correctness is all of it
    assert entropy["data"][0]["x"] == [1, 3, 4, 5]  # the entropy of step 2 is not a number
    assert accuracy["data"][1]["y"] == [0.25, 0.75]


def figures(page: Page) -> list[dict]:
    """The charts of a page, each of which plotly knows every property of."""
    found = [json.loads(script) for script in page.of("script") if script.startswith("{")]
    for figure in found:
        go.Figure(figure)
    return found


def rewrite(run: Path, *records: dict) -> Page:
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return Page(write_report(run))


def test_parts_of_the_reward_are_drawn_whatever_their_names(run: Path):
    parts = {"reward/verifier": 0.3, "reward/rouge_l": 0.2, "reward/mine.brevity": -0.1}
    page = rewrite(run, *(train(step) | {name: value * step for name, value in parts.items()} for step in range(1, 6)))
    reward, *_ = figures(page)
    assert [trace["name"] for trace in reward["data"]] == ["total", "verifier", "rouge_l", "mine.brevity"]
    assert len({trace["line"]["color"] for trace in reward["data"]}) == 4


def test_the_parts_of_a_rollouts_reward_are_shown_whatever_their_names(run: Path):
    rollouts = [rollout("right", 1.5, "new") | {"rewards": {"verifier": 1.0, "mine": 0.5, "format": None}}]
    line = {"step": 5, "problem": {"id": "p1", "prompt": "?", "answer": "4"}, "rollouts": rollouts}
    with gzip.open(run / "rollouts" / "000005.jsonl.gz", "wt") as file:
        file.write(json.dumps(line) + "\n")
    spans = Page(write_report(run)).of("span")
    names = [span for span in spans if span in ("reward", "verifier", "mine", "format", "correctness")]
    assert names[-3:] == ["reward", "verifier", "mine"]


def test_what_does_not_move_is_said_and_not_drawn(run: Path):
    still = {
        "rollouts/length_mean": 33.0,
        "rollouts/truncated": 0.0,
        "loss/clip_fraction_low": 0.0,
        "optimizer/gradient_norm": 1.0,
    }
    noise = [{"loss/kl_old": 3e-9 * step, "loss/kl_ref": 0.01 * step} for step in range(1, 6)]
    page = rewrite(run, *(train(step) | still | noise[step - 1] for step in range(1, 6)))
    titles = [heading for heading in page.of("h3") if not heading.startswith("Step")]
    assert titles == ["Reward", "Entropy", "KL divergence", "Time a step"]
    (kl,) = (figure for figure in figures(page) if figure["data"][-1]["name"] == "reference")
    assert [trace["name"] for trace in kl["data"]] == ["reference"]
    said = [
        line
        for line in page.of("p")
        if line.partition(":")[0] in ("Zero throughout", "Constant", "Rounding noise, which is zero")
    ]
    assert said == [
        "Constant: completion length (mean) 33, gradient norm 1.",
        "Zero throughout: cut and unknown (cut), clipped tokens (below).",
        "Rounding noise, which is zero: KL divergence (sampling policy).",
    ]


def test_an_accuracy_of_zero_is_no_card_and_one_that_does_not_move_is(run: Path):
    zero = rewrite(run, evaluation(0, 0.0, 20.0), evaluation(5, 0.0, 12.0))
    assert figures(zero) == []
    assert "Zero throughout: held-out accuracy (sampled responses)." in zero.of("p")
    (still,) = figures(rewrite(run, evaluation(0, 0.5, 20.0), evaluation(5, 0.5, 12.0)))
    assert still["data"][1]["y"] == [0.5, 0.5]


def test_the_page_opens_with_method_and_model_and_cards_that_say_what_good_is(run: Path):
    (run / "config.yaml").write_text("method: grpo\nmodel: {path: org/model, lora: {rank: 8}}\ntask: {name: sums}\n")
    page = Page(write_report(run))
    assert page.of("dd")[:3] == ["grpo", "org/model, LoRA", "sums"]
    assert page.of("h2") == ["More curves", "What the model wrote", "How it was made"]
    assert ("details", "class", "fold") in page.attributes
    assert [text for text in page.of("strong") if text.startswith("Good: ")] == [
        card.good for card in CARDS if card.title in ("Held-out accuracy", "Reward", "Entropy")
    ]


def test_a_run_without_an_optimiser_step_says_that_nothing_was_trained(run: Path):
    said = "Nothing was trained: the run has made no optimiser step."
    assert said in rewrite(run, evaluation(0, 0.25, 20.0)).of("p")
    alike = f"{said} In no group did the rewards differ. A warm start, a denser reward or easier problems would help."
    assert alike in rewrite(run, train(1) | {"rollouts/unknown": 0.5}).of("p")
    idle = f"{said} Rewards differed in some groups, but every advantage was 0."
    assert idle in rewrite(run, train(1) | {"advantage/groups_without_spread": 0.5}).of("p")
    unknown = f"{said} No response had a reward: to each the verifier or a reward said that it cannot tell."
    assert unknown in rewrite(run, train(1) | {"rollouts/unknown": 1.0}).of("p")
    assert said not in rewrite(run, train(1) | {"optimizer/gradient_norm": 0.5}).of("p")


def test_the_most_likely_response_is_drawn_with_its_own_interval(run: Path):
    greedy = {"evaluation/greedy/accuracy": 0.5, "evaluation/greedy/low": 0.3, "evaluation/greedy/high": 0.7}
    records = [evaluation(0, 0.25, 20.0) | greedy, evaluation(5, 0.75, 12.0) | greedy]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (figure,) = figures(Page(write_report(run)))
    of_samples, samples, of_greedy, most_likely = figure["data"]
    assert (samples["name"], most_likely["name"]) == ("sampled responses", "most likely response")
    assert most_likely["y"] == [0.5, 0.5]
    assert of_samples["y"] == pytest.approx([0.3, 0.8, 0.7, 0.2])
    assert of_greedy["y"] == [0.7, 0.7, 0.3, 0.3]


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert Page(write_report(tmp_path)).of("h2") == []


def test_a_long_run_is_thinned_and_keeps_its_spikes():
    points = [(step, 0.0) for step in range(10_000)]
    points[1234] = (1234, 7.0)
    assert (1234, 7.0) in _extremes(points)
    assert len(_extremes(points)) <= POINTS_A_CURVE + 2
    thinned = _thinned(points, 400)
    assert (len(thinned), thinned[0], thinned[-1]) == (400, points[0], points[-1])


def test_the_moving_average_is_the_mean_of_its_window():
    points = [(step, float(step**2)) for step in range(80)]
    averages = _moving_average(points)
    assert averages[10] == (10, pytest.approx(sum(step**2 for step in range(8, 13)) / 5))  # 80 // 40 on either side
    assert averages[0] == (0, pytest.approx((0 + 1 + 4) / 3))
    assert _moving_average(points[:19]) == points[:19]


def test_a_huge_text_keeps_its_beginning_and_its_end():
    text = _shortened("a" * 30_000 + "the answer is 4")
    assert text.startswith("a" * TEXT_HEAD)
    assert text.endswith("the answer is 4")
    assert re.search(r"18,015 characters left out", text)
