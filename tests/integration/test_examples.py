"""Every example runs, in miniature: with a model of a few thousand parameters in place of one from the hub."""

import importlib.util
import os
import string
import subprocess
from pathlib import Path

import pytest

from lampo.compare.study import load_study
from lampo.config.schema import ModelOptions
from lampo.model.policy import Policy
from lampo.store.metrics import read_metrics

from ..conftest import ARCHITECTURES, TINY
from ..helpers import warm

EXAMPLES = Path(__file__).parents[2] / "examples"
CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
SHORT = ["training.steps=1", "sampling.problems_per_step=2", "sampling.group_size=4", "sampling.max_new_tokens=8"]
SHORT += ["evaluation.problems=2", "run.threads=1", "training.tokens_per_microbatch=2048"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that stands for the one of the hub."""
    config = TINY | ARCHITECTURES["qwen3-tied"] | {"max_position_embeddings": 256}
    characters = string.ascii_letters + string.digits + string.punctuation + " \n"
    policy = Policy.load(ModelOptions(config=config, characters=characters), seed=3)
    policy.tokenizer.chat_template = CHAT
    folder = tmp_path_factory.mktemp("model")
    policy.save(folder)
    return folder


def run(*command: str, folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*warm.python(), *command], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def train(recipe: str, model: Path, folder: Path, *settings: str) -> str:
    chosen = [*SHORT, f"model.path={model}", f"run.folder={folder}", *settings]
    command = ["-m", "lampo", "train", f"examples/{recipe}", *(word for each in chosen for word in ("--set", each))]
    return run(*command, folder=EXAMPLES.parent)


def test_each_fits_on_a_page_and_has_a_test() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    for file in EXAMPLES.iterdir():
        if file.suffix in (".py", ".yaml"):
            assert len(file.read_text(encoding="utf-8").splitlines()) < 60
            assert file.stem in tested


def test_own_data_with_chat_template_system_prompt_and_lora(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    train("own_data.yaml", model, tmp_path)
    assert (tmp_path / "own-data" / "model" / "adapter_config.json").is_file()
    (record,) = [record for record in read_metrics(tmp_path / "own-data") if record["stage"] == "train"]
    assert {"reward/verifier", "reward/format", "reward/rouge_l"} <= record.keys()


def test_own_reward(model: Path, tmp_path: Path) -> None:
    train("own_reward.yaml", model, tmp_path)
    (record,) = [record for record in read_metrics(tmp_path / "own-reward") if record["stage"] == "train"]
    assert record["reward/brevity"] == 0  # nothing is right yet, and only right responses are paid for being short


def test_own_advantage_beside_lampo_and_grpo(tmp_path: Path) -> None:
    runs = load_study(EXAMPLES / "own_advantage.yaml").test({})
    assert [run.config.advantage.title for run in runs[:3]] == ["grpo", "pairwise", "own_advantage.rare_successes"]
    own = ["method=null", "advantage.name=python:own_advantage.rare_successes", "advantage.power=2"]
    chosen = [*SHORT, *own, f"run.folder={tmp_path}", "warmstart.steps=0", "evaluation.final_problems=2"]
    run("-m", "lampo", "train", "quickstart", *(word for each in chosen for word in ("--set", each)), folder=EXAMPLES)
    (record,) = [record for record in read_metrics(tmp_path / "quickstart") if record["stage"] == "train"]
    assert record["advantage/sum"] == 0  # nothing is right yet


def test_verifiers_alone() -> None:
    told = run("examples/verifiers.py", folder=EXAMPLES.parent).splitlines()
    assert told[0] == r"right because it says \frac{1}{2}"
    assert [line.split()[0] for line in told[1:]] == ["right", "right", "wrong", "wrong", "right"]


def test_plain_loop(model: Path) -> None:
    command = ["examples/plain_loop.py", str(model), "2", "8"]
    told = run(*command, folder=EXAMPLES.parent).splitlines()
    assert [line.split(":")[0] for line in told] == ["step 1", "step 2"]


def test_trl_grpo(model: Path, tmp_path: Path) -> None:
    source = (EXAMPLES / "trl_grpo.py").read_text(encoding="utf-8")
    compile(source, "trl_grpo.py", "exec")
    missing = [name for name in ("trl", "accelerate", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"TRL's trainer needs {', '.join(missing)}")
    command = ["examples/trl_grpo.py", "--model", str(model), "--output", str(tmp_path), "--steps", "1"]
    told = run(*command, "--max-completion-length", "8", folder=EXAMPLES.parent)
    assert "rewards/lampo_numeric/mean" in told
    assert "rewards/lampo_format/mean" in told


def test_trl_lampo(model: Path, tmp_path: Path) -> None:
    if missing := [name for name in ("trl", "accelerate", "datasets") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"TRL's trainer needs {', '.join(missing)}")
    command = ["examples/trl_lampo.py", "--model", str(model), "--output", str(tmp_path), "--steps", "1"]
    assert "rewards/verifier/mean" in run(*command, folder=EXAMPLES.parent)
    assert (tmp_path / "model" / "model.safetensors").is_file()
