"""What a run leaves behind for use: a model that loads by itself, and that the next run begins from."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lampo.model.policy import Policy
from lampo.store.files import find_corruption
from lampo.train.finish import finish, keep_model
from lampo.train.model_card import front_matter
from lampo.train.run import Run
from lampo.train.session import Stopped
from lampo.types import LampoError

from ..conftest import tiny_options
from ..helpers.small_run import curve, resume, run_to_end, small_config


def keep(path: Path) -> Path:
    """What `lampo train` does after the last step."""
    run, _ = Run.resume(path)
    run.close()
    model = keep_model(run)
    assert model == path / "model"
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = run_to_end(small_config(tmp_path_factory.mktemp("finished")))
    keep(path)
    return path


@pytest.fixture
def path(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "small"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_model_loads_in_transformers_and_holds_nothing_of_training(finished: Path) -> None:
    folder = finished / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    output = model.generate(**tokenizer("12+34=", return_tensors="pt", return_token_type_ids=False), max_new_tokens=3)
    assert tokenizer.decode(output[0]).startswith("12+34=")
    files = {file.name: file for file in folder.iterdir()}
    assert files.keys() == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        "tokenizer_config.json",
    }
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o644}
    assert front_matter(folder / "README.md")["library_name"] == "transformers"
    assert "| held-out accuracy |" in (folder / "README.md").read_text()
    assert str(finished / "model") in (folder / "README.md").read_text()


def test_the_weights_take_their_room_once_and_writing_the_model_anew_spares_the_checkpoint(path: Path) -> None:
    shutil.rmtree(path / "model")  # the copy has weights of its own
    model, checkpoint = keep(path), path / "checkpoints" / "train-000006"
    assert (model / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert not (model / "config.json").samefile(checkpoint / "config.json")  # which people edit
    save_file({"other": torch.zeros(1)}, model / "model.safetensors")
    (model / "README.md").write_text("my own card")
    assert find_corruption(checkpoint) is None
    keep(path)
    assert (model / "README.md").read_text() == "my own card"


def test_where_there_are_no_hard_links_the_weights_are_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    shutil.rmtree(path / "model")
    monkeypatch.setattr(os, "link", no_links)
    assert (keep(path) / "model.safetensors").stat().st_nlink == 1


def test_a_full_disk_leaves_no_half_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    shutil.rmtree(path / "model")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(LampoError, match="No space left.*train-000006 holds the same weights.*--resume"):
        keep(path)
    assert not list(path.glob("*model*"))


def test_stopped_and_resumed_the_model_is_that_of_the_end(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, count = Run.log, 0

    def interrupting(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return log(*args)

    monkeypatch.setattr(Run, "log", interrupting)
    with pytest.raises(Stopped):
        run_to_end(small_config(tmp_path))
    assert not (tmp_path / "small" / "model").exists()
    resume(tmp_path / "small")
    ours, theirs = weights(keep(tmp_path / "small")), weights(finished / "model")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_trained_on_equals_trained_so_long_at_once(finished: Path, tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path, training__steps=3))
    assert keep(path).is_dir()
    assert resume(path, "training.steps=6") == ["training goes on from step 3 to step 6, not 3"]
    assert not (path / "model").exists()  # it was that of step 3
    assert curve(path) == curve(finished)
    ours, theirs = weights(keep(path)), weights(finished / "model")
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    entries = json.loads((path / "manifest.json").read_text())["resumed"]
    assert (["training.steps=6"], "train-000003") in [(entry["settings"], entry["after"]) for entry in entries]
    assert resume(path) == []  # its config.yaml says 6


def test_a_refused_setting_changes_nothing(path: Path) -> None:
    before = {file: file.read_bytes() for file in path.glob("[!.]*.*")}
    with pytest.raises(LampoError, match=r"--resume cannot set run\.seed"):
        Run.resume(path, ["training.steps=9", "run.seed=1"])
    assert {file: file.read_bytes() for file in path.glob("[!.]*.*")} == before


def test_a_run_at_its_end_without_checkpoints_is_not_begun_anew(path: Path) -> None:
    shutil.rmtree(path / "checkpoints")
    metrics = (path / "metrics.jsonl").read_bytes()
    with pytest.raises(LampoError, match=f"no checkpoint to go on from. Start a new run from .*model.path={path}"):
        Run.resume(path)
    shutil.rmtree(path / "model")  # as in a study
    with pytest.raises(LampoError, match="no checkpoint to go on from. Start a new run"):
        Run.resume(path, ["training.steps=9"])
    assert (path / "metrics.jsonl").read_bytes() == metrics


def from_run(path: Path, folder: Path, **changes: Any) -> Any:
    return small_config(folder, model={"path": str(path)}, warmstart__steps=0, **changes)


def test_a_run_stands_for_its_model(path: Path, tmp_path: Path) -> None:
    expected = weights(path / "model")
    second = run_to_end(from_run(path, tmp_path / "second", training__steps=1))
    assert curve(second)[0]["evaluation/accuracy"] == curve(path)[-1]["evaluation/accuracy"]
    shutil.rmtree(path / "model")  # then for its latest whole checkpoint
    for model in (Policy.load(from_run(path, tmp_path).model).model for _ in range(2)):
        assert model.state_dict()["model.embed_tokens.weight"].equal(expected["model.embed_tokens.weight"])
        (path / "checkpoints" / "train-000006" / "config.json").write_text("{")
        expected = weights(path / "checkpoints" / "train-000004")
    shutil.rmtree(path / "checkpoints")
    with pytest.raises(LampoError, match=f"The run {path} has no model yet: neither model/ nor a whole checkpoint"):
        Policy.load(from_run(path, tmp_path).model)


def test_adapters_of_a_run_are_merged_where_another_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = tmp_path / "base"
    Policy.load(tiny_options(), seed=1).save(base)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    changes = {"warmstart__steps": 2, "training__steps": 2, "model": {"path": str(base), "lora": {"rank": 2}}}
    first = run_to_end(small_config(tmp_path / "first", **changes))
    model = keep(first)
    values = front_matter(model / "README.md")
    assert (values["library_name"], values["base_model"], values["license"]) == ("peft", str(base), "apache-2.0")
    assert {file.name for file in model.glob("*.safetensors")} == {"adapter_model.safetensors"}
    loaded = AutoModelForCausalLM.from_pretrained(model)  # transformers adds the adapters to their base
    merged = Policy.load(from_run(first, tmp_path).model)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.allclose(merged.model(ids).logits, loaded(ids).logits, atol=1e-5)
    assert not torch.equal(merged.model(ids).logits, Policy.load(tiny_options(), seed=1).model(ids).logits)

    changes["model"] = {"path": str(first), "lora": {"rank": 2}}
    second = run_to_end(small_config(tmp_path / "second", **changes))
    adapters = json.loads((keep(second) / "adapter_config.json").read_text())
    (made_once,) = (tmp_path / "cache" / "lampo").glob("merged-*")
    assert adapters["base_model_name_or_path"] == str(made_once)
    again = AutoModelForCausalLM.from_pretrained(second / "model")
    twice = Policy.load(from_run(second, tmp_path).model)
    assert torch.allclose(twice.model(ids).logits, again(ids).logits, atol=1e-5)


def test_adapters_of_a_model_from_scratch_are_no_base(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = run_to_end(small_config(tmp_path, model__lora={"rank": 2}, training__steps=1))
    keep(path)
    with pytest.raises(LampoError, match="LoRA adapters of a model from scratch"):
        Policy.load(from_run(path, tmp_path).model)


def test_where_nothing_was_trained_no_model_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(small_config(tmp_path, warmstart__steps=0, training__steps=0))
    run.log("evaluation", 0, {"evaluation/accuracy": 0.5})
    finish(run)
    run.close()
    assert not (run.path / "model").exists()
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {run.path / 'report.html'}"
