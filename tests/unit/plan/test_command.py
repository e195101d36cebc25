"""`lampo plan`: what it prints, refuses and promises."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from lampo.config.load import load_config
from lampo.plan.cards import ENGINES, Range
from lampo.plan.command import _range, print_plan
from lampo.plan.plan import plan
from lampo.types import LampoError

RECIPES = Path(__file__).parents[3] / "recipes"
PAPER = ("qwen3-1.7b-mot", "qwen3-4b-mot", "phi-4-mini-mot")


def printed(
    capsys: pytest.CaptureFixture[str], recipe: str = "qwen3-1.7b-mot", *settings: str, **changes: object
) -> str:
    options = {"gpus": 1, "gpu": "h100", "length": None, "lengths": None, "prompt": None} | changes
    print_plan(Path(recipe), settings, **options)  # pyright: ignore[reportArgumentType]
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 0}, "--gpus 0: plan for 1 to 512."),
        ({"gpus": 513}, "--gpus 513: plan for 1 to 512."),
        (
            {"gpu": "h10"},
            "Nothing is known of the GPU 'h10'. Did you mean h100? Known: a100, h100, h200, b200, l40s, cpu.",
        ),
        ({"gpu": "cpu", "gpus": 8}, "--gpu cpu stands for two processor cores, and has no GPUs."),
        ({"length": 9000.0}, "--length 9000: a response has 1 to 8,192 tokens."),
        ({"length": 10.0, "lengths": Path("x")}, "give one of them"),
        ({"lengths": Path("nothing")}, "nothing has no rollouts to take lengths from."),
    ],
)
def test_refusals_are_one_line(changes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LampoError) as error:
        printed(capsys, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_all_that_a_reader_needs_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    for word in (
        "native",
        "trl",
        "verl",
        "rollouts, s",
        "update, s",
        "the run, h",
        "GiB of 79",
        "most time",
        "measured:",
        "assumed:",
    ):
        assert word in text
    assert max(map(len, text.split("measured:")[0].splitlines()[4:-2])) <= 100
    assert "4,096 tokens on average (assumed, 2,867 to 5,325)" in text
    assert "Evaluation takes more than a tenth" not in text
    assert "The native engine has one GPU" in printed(capsys, gpus=8)
    assert "256 GPUs have none" in printed(capsys, gpus=512)
    assert "100 tokens on average (given)" in printed(capsys, length=100.0)
    assert "warm start, min" in printed(capsys, "quickstart", gpu="cpu")


def test_a_run_without_steps_is_its_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"most time +evaluation", printed(capsys, "qwen3-1.7b-mot", "training.steps=0"))


def test_it_catches_an_evaluation_that_eats_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "qwen3-1.7b-mot", "evaluation.samples=4")
    assert "Evaluation takes more than a tenth of the run: 5,032 responses before the first step." in text


def test_it_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert "native does not fit. Its largest part is AdamW's moments" in printed(capsys, "qwen3-4b-mot", gpu="l40s")
    assert "may not fit: take one step first" in printed(capsys, "qwen3-1.7b-mot")


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("engine", ["trl", "verl"])
def test_more_gpus_are_never_slower_nor_fuller(name: str, engine: str) -> None:
    config = load_config(RECIPES / f"{name}.yaml")
    plans = [plan(config, engine, gpus) for gpus in (1, 2, 4, 8, 16, 64, 256, 512)]  # pyright: ignore[reportArgumentType]
    for fewer, more in pairwise(plans):
        for attribute in ("rollouts", "update", "step", "hours", "memory"):
            before, after = getattr(fewer, attribute), getattr(more, attribute)
            for end in ("fast", "likely", "slow"):
                assert getattr(after, end) <= getattr(before, end) * 1.02, (attribute, end)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda recipe: recipe.stem)
def test_a_range_holds_what_is_likely(recipe: Path) -> None:
    for engine in ENGINES:
        made = plan(load_config(recipe), engine)
        for value in (made.rollouts, made.update, made.step, made.hours, made.memory, made.length, *made.evaluations):
            assert 0 <= value.fast <= value.likely <= value.slow


@pytest.mark.parametrize("name", PAPER)
def test_evaluation_of_the_papers_recipes_is_at_most_a_tenth(name: str) -> None:
    for engine in ENGINES:
        assert plan(load_config(RECIPES / f"{name}.yaml"), engine, 1, "h200").evaluation_share.slow <= 0.1


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (RECIPES.parent / "docs" / "plan.md").read_text()
    shown = page.split("$ lampo plan qwen3-1.7b-mot\n")[1].split("```")[0]
    assert shown.split() == printed(capsys).split()
    config = load_config(RECIPES / "qwen3-1.7b-mot.yaml")
    for gpus in (1, 8, 32, 128, 512):
        made = plan(config, "verl", gpus)
        cells = [made.rollouts, made.stragglers, made.update, made.transfer, made.step, made.hours]
        assert f"| {gpus} | {' | '.join(map(_range, cells))} |" in page


STATED = re.compile(
    r"^#   (one|eight) (\w+)( in verl)? +(.*?) hours +(.*?) s a step +(.*?) GiB(?:   with\n#     (.*))?$", re.MULTILINE
)


@pytest.mark.parametrize("name", [*PAPER, "qwen3-1.7b-gsm8k", "smollm2-135m-gsm8k"])
def test_what_a_recipe_states_is_what_is_planned(name: str) -> None:
    """Where a constant or a setting moves, `lampo plan` says what to write there."""
    path = RECIPES / f"{name}.yaml"
    stated = STATED.findall(path.read_text())
    assert stated
    for number, gpu, in_verl, *values, settings in stated:
        config = load_config(path, settings.replace("--set ", "").split())
        made = plan(config, "verl" if in_verl else "native", 8 if number == "eight" else 1, gpu)
        gib = Range(*(each / 2**30 for each in (made.memory.fast, made.memory.likely, made.memory.slow)))
        assert values == [_range(made.hours), _range(made.step), _range(gib)]
