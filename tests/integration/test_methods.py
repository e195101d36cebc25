"""Every method in runs of a few steps; dynamic sampling, and the untrained model."""

import math
from pathlib import Path

import pytest

from lampo.methods import METHODS
from lampo.report import read_metrics, write_report
from lampo.shards import read_groups
from tests.integration.helpers import curve, resume, run_to_end, small_config

COIN = {"name": "python:tests.integration.coin.verify"}


def steps(path: Path) -> list[dict[str, float]]:
    return [record for record in read_metrics(path) if record["stage"] == "train"]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cot"])
def test_every_method_trains_to_its_end_with_finite_losses(tmp_path: Path, name: str) -> None:
    config = small_config(tmp_path, verifier=COIN, method=name, training__updates_per_batch=2, training__steps=3)
    assert config.method == name
    losses = [record["loss/value"] for record in steps(run_to_end(config)) if "loss/value" in record]
    assert losses
    assert all(map(math.isfinite, losses))


def test_the_untrained_model_is_measured_and_reported(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path, training__steps=0, evaluation__final_samples=3, evaluation__skip=13))
    (record,) = (record for record in read_metrics(path) if record["stage"] == "evaluation")
    assert record["step"] == 0
    assert (record["evaluation/problems"], record["evaluation/samples"]) == (3, 3)  # all there are but thirteen
    assert record["evaluation/pass_at_k"] >= record["evaluation/accuracy"]
    assert write_report(path).is_file()


def test_dynamic_sampling_keeps_mixed_groups_and_counts_what_it_throws_away(tmp_path: Path) -> None:
    config = small_config(tmp_path, verifier=COIN, sampling__group_size=2, sampling__resample=2)
    path = run_to_end(config)
    for record in steps(path):
        groups = read_groups(path, int(record["step"]))
        statuses = [{rollout["status"] for rollout in group["rollouts"]} for group in groups]
        assert len(groups) <= 3
        assert statuses == [{"right", "wrong"}] * len(groups) or record["rollouts/sampled"] == 3 * 3 * 2
        assert 2 * len(groups) <= record["rollouts/sampled"] <= 3 * 3 * 2
        assert len({group["problem"]["id"] for group in groups}) == len(groups)
    assert sum(record["rollouts/sampled"] for record in steps(path)) > 6 * 3 * 2


def test_a_run_with_dynamic_sampling_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    config = small_config(tmp_path / "a", verifier=COIN, sampling__group_size=2, sampling__resample=2)
    whole = run_to_end(config)
    cut = run_to_end(
        small_config(tmp_path / "b", verifier=COIN, sampling__group_size=2, sampling__resample=2, training__steps=4)
    )
    text = (cut / "config.yaml").read_text()
    (cut / "config.yaml").write_text(text.replace("  steps: 4\n  updates", "  steps: 6\n  updates"))
    resume(cut)
    assert [record for record in curve(cut) if record["stage"] == "train"] == [
        record for record in curve(whole) if record["stage"] == "train"
    ]
