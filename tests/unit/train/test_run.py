import gzip
import hashlib
import importlib.metadata
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from lampo.config.load import load_config, parse_config
from lampo.config.schema import TrainConfig
from lampo.seeds import derive_seed
from lampo.train.run import Run, find_run
from lampo.types import LampoError, Problem

from ...conftest import CHARACTERS, tiny_options

PROBLEMS = [Problem(id=str(index), prompt="?", answer="1") for index in range(7)]


def config(folder: Path, seed: int = 0, name: str = "small") -> TrainConfig:
    values = {
        "run": {"name": name, "folder": str(folder), "seed": seed},
        "model": {"config": tiny_options().config, "characters": CHARACTERS},
        "task": {"name": "arithmetic"},
    }
    return parse_config(values, "a test")


def order(run: Run, steps: range, count: int, stage: str = "train") -> list[int]:
    return [
        int(problem.id)
        for step in steps
        for problem in run.problems(PROBLEMS, step, count, stage)  # pyright: ignore[reportArgumentType]
    ]


@pytest.fixture
def run(tmp_path: Path):
    run = Run.create(config(tmp_path))
    yield run
    run.close()


@pytest.mark.parametrize("count", [1, 3, 7, 16])
def test_every_epoch_is_a_permutation_whatever_the_size_of_a_step(run: Run, count: int) -> None:
    steps = 7 * 5 // count + 1
    indices = order(run, range(1, steps + 1), count)
    epochs = [indices[start : start + 7] for start in range(0, 7 * 5, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert epochs == [order(run, range(epoch, epoch + 1), 7) for epoch in range(1, 6)]  # the same, whatever the size


def test_more_problems_a_step_than_there_are(run: Run) -> None:
    counts = Counter(order(run, range(1, 2), 16))
    assert set(counts) == set(range(7))
    assert sorted(counts.values()) == [2] * 5 + [3] * 2  # 16 = 2 * 7 + 2


def test_the_order_is_a_function_of_seed_and_stage(run: Run, tmp_path: Path) -> None:
    again, other = Run.create(config(tmp_path)), Run.create(config(tmp_path, seed=1))
    steps = range(1, 4)
    torch.manual_seed(5)
    assert order(run, steps, 7) == order(again, steps, 7)
    assert order(run, steps, 7) != order(other, steps, 7)
    assert order(run, steps, 7) != order(run, steps, 7, "warmstart")
    assert order(run, range(3, 4), 7) == order(run, steps, 7)[14:]  # a step needs none of those before it
    again.close()
    other.close()


def test_seeds_of_different_places_differ() -> None:
    places = [(purpose, step) for purpose in ("sample", "order") for step in range(500)]
    seeds = {derive_seed(seed, *place) for seed in (0, 1) for place in places}
    assert len(seeds) == 2 * 2 * 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a", 2) != derive_seed(1, "a", "2")
    assert derive_seed(1, "ab") != derive_seed(1, "a", "b")
    by_hand = int(hashlib.blake2b(b"(0, 'sample', 1)", digest_size=8).hexdigest(), 16) // 2
    assert derive_seed(0, "sample", 1) == by_hand  # in any process, on any machine


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    runs = [Run.create(config(tmp_path)) for _ in range(3)]
    assert [run.path.name for run in runs] == ["small", "small-2", "small-3"]
    neighbour = Run.create(config(tmp_path, name="small-world"))
    other_recipe = Run.create(config(tmp_path, name="small-7"))
    assert find_run(tmp_path, "small") == tmp_path / "small-3"
    assert find_run(tmp_path, "small-world") == neighbour.path
    assert find_run(tmp_path, "small-7") == other_recipe.path
    assert find_run(tmp_path, "smal") is None
    assert find_run(tmp_path / "nowhere", "small") is None
    for run in (*runs, neighbour, other_recipe):
        run.close()


def test_a_run_directory_says_what_made_it(run: Run) -> None:
    assert load_config(run.path / "config.yaml") == run.config
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["versions"]["torch"] == importlib.metadata.version("torch")


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LampoError, match="Cannot make a run directory in .*run.folder=DIR"):
        Run.create(config(tmp_path / "file" / "runs"))


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_a_run_that_ends_while_it_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: BaseException
) -> None:
    def write(path: Path, data: bytes) -> None:
        if path.name == name:
            raise end
        path.write_bytes(data)

    monkeypatch.setattr("lampo.train.run.write_file", write)
    with pytest.raises((KeyboardInterrupt, LampoError)):
        Run.create(config(tmp_path / "runs"))
    assert not list(tmp_path.iterdir())


def test_a_new_run_has_one_writer(run: Run) -> None:
    with pytest.raises(LampoError, match="The run .*small is under way in process"):
        Run.resume(run.path)
    run.close()
    Run.resume(run.path)[0].close()


def test_resuming_without_a_checkpoint_undoes_everything(run: Run) -> None:
    run.log("train", 1, {"loss": 0.5})
    (run.path / "rollouts" / "000001.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    run.close()
    again, complaints = Run.resume(run.path)
    assert complaints == []
    assert again.weights is None
    assert (again.path / "metrics.jsonl").read_bytes() == b""
    assert not list((again.path / "rollouts").iterdir())
    assert again.steps("warmstart", 4) == range(1, 5)
    assert again.steps("train", 6) == range(1, 7)
    again.close()


def test_metrics_are_one_object_a_line(run: Run) -> None:
    line = run.log("train", 1, {"loss": 0.5})
    run.log("evaluation", 1, {"accuracy": 0.1})
    assert [json.loads(text) for text in (run.path / "metrics.jsonl").read_text().splitlines()] == [
        line,
        {"stage": "evaluation", "step": 1, "accuracy": 0.1},
    ]
