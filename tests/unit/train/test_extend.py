from pathlib import Path

import pytest

from lampo.config.explain import dump_config
from lampo.store.checkpoints import Position
from lampo.train.extend import extended
from lampo.types import LampoError

from ...helpers.small_run import small_config

END = Position("train", 6, 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(dump_config(small_config(tmp_path)))
    return tmp_path


def test_a_longer_run_is_the_same_recipe_but_for_its_length(run: Path) -> None:
    config, notes = extended(run, ["training.steps=9", "run.checkpoint_every=7"], END)
    assert config == small_config(run, training__steps=9, run__checkpoint_every=7)
    assert notes == ["training goes on from step 6 to step 9, not 6"]
    assert extended(run, ["run.threads=2"], END)[1] == []


def test_what_becomes_of_a_cosine_schedule_is_told(tmp_path: Path) -> None:
    optimizer = {"learning_rate": 1e-3, "schedule": "cosine"}
    (tmp_path / "config.yaml").write_text(dump_config(small_config(tmp_path, optimizer=optimizer)))
    _, (_, note) = extended(tmp_path, ["training.steps=12"], END)
    # at step 6 of 6 it is 0; at step 7 of 12 it is 1e-3 * (1 + cos(7/12 pi)) / 2
    assert note == (
        "the cosine schedule of the learning rate now ends at step 12, not 6: it was 0 at step 6 and is 0.000371 at step 7"
    )
    _, (_, note) = extended(tmp_path, ["training.steps=12"], Position("warmstart", 4, 0))
    assert note == "the cosine schedule of the learning rate now ends at step 12, not 6"


def test_the_same_length_once_more_is_no_change_before_its_end(run: Path) -> None:
    config, notes = extended(run, ["training.steps=6"], Position("train", 5, 0))
    assert (config.training.steps, notes) == (6, [])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.steps=6", "training.steps is 6 in this run, and --resume can only raise it, not set it to 6"),
        ("training.steps=3", "not set it to 3. To end earlier, press Ctrl-C"),
        (
            "optimizer.learning_rate=1",
            "--resume cannot set optimizer.learning_rate: .* start a new run from this one's",
        ),
        ("training.step=9", "--resume cannot set training.step: .* Did you mean training.steps?"),
        ("method=grpo", "--resume cannot set method"),
        ("training=9", "--resume cannot set training:"),
        ("training.steps=many", "training.steps: "),
        ("training.steps", "write it as section.key=value"),
    ],
)
def test_what_may_not_change_is_refused_by_name(run: Path, setting: str, message: str) -> None:
    with pytest.raises(LampoError, match=message):
        extended(run, [setting], END)
