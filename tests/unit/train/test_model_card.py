from pathlib import Path
from typing import Any

import pytest
import yaml

from lampo.config.schema import TrainConfig
from lampo.train.model_card import front_matter, model_card

from ...helpers.small_run import small_config

METRICS = [
    {"stage": "evaluation", "step": 0, "evaluation/accuracy": 0.25, "evaluation/low": 0.2, "evaluation/high": 0.3},
    {"stage": "evaluation", "step": 6, "evaluation/accuracy": 0.5, "evaluation/low": 0.4, "evaluation/high": 0.6},
]
MANIFEST = {
    "command": "lampo train mine.yaml",
    "versions": {"lampo": "0.1.0", "torch": "2.13.0"},
    "python": "3.12.1",
    "platform": "Linux",
    "resumed": [{"command": "lampo train runs/mine --resume --set training.steps=6"}],
}


def pretrained(path: str, **changes: Any) -> TrainConfig:
    return small_config(Path("runs"), model={"path": path}, **changes)


def card(config: TrainConfig, base: dict[str, Any] | None = None) -> str:
    return model_card(Path("runs/mine"), config, METRICS, MANIFEST, base or {})


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_says_what_was_trained_and_what_came_of_it() -> None:
    text = card(pretrained("Qwen/Qwen3-0.6B", method="grpo", prompt={"template": "Q: {prompt}", "system": "Be brief."}))
    assert front(text) == {
        "base_model": "Qwen/Qwen3-0.6B",
        "library_name": "transformers",
        "license": "unknown",
        "pipeline_tag": "text-generation",
        "tags": ["lampo", "reinforcement-learning", "grpo"],
    }
    for line in (
        "# mine",
        "This is `Qwen/Qwen3-0.6B`, trained on the task `arithmetic` with `grpo`.",
        "| held-out accuracy | 25.0 % [20.0, 30.0] | 50.0 % [40.0, 60.0] | +25.0 points |",
        "| training | 6 steps of 3 problems with 4 responses each |",
        "Q: {prompt}",
        "Be brief.",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "lampo train mine.yaml",
        "lampo train runs/mine --resume --set training.steps=6",
        "With lampo 0.1.0, torch 2.13.0, Python 3.12.1 on Linux.",
    ):
        assert line in text.splitlines()


def test_what_is_no_name_on_the_hub_is_no_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for path in ("models/mine", str(tmp_path), "package:some_package/weights.gguf"):
        assert "base_model" not in front(card(pretrained(path)))
        assert f"`{path}`" in card(pretrained(path))
    assert "This is a `qwen3` model from scratch, trained" in card(small_config(Path("runs")))


def test_licence_and_base_come_from_the_card_of_the_base(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("---\nlicense: other\nlicense_name: mine\nbase_model: Qwen/Qwen3-0.6B\n---\n# A model\n")
    values = front(card(pretrained("runs/first"), front_matter(file)))
    assert (values["license"], values["license_name"]) == ("other", "mine")
    for text in ("no front matter", "---\n- a list\n---\n", "---\n: [\n---\n"):
        file.write_text(text)
        assert front_matter(file) == {}
    assert front_matter(tmp_path / "nowhere") == {}


def test_adapters_name_their_base_and_how_to_load_them() -> None:
    text = card(pretrained("/models/mine", model__lora={"rank": 2}))
    assert (front(text)["library_name"], front(text)["base_model"]) == ("peft", "/models/mine")
    assert "LoRA adapters of `/models/mine`, trained on" in text
    assert "from peft import AutoPeftModelForCausalLM" in text
    assert "lampo eval runs/mine" in card(small_config(Path("runs"), model__lora={"rank": 2}))


def test_without_an_evaluation_there_is_no_table() -> None:
    text = model_card(Path("runs/mine"), small_config(Path("runs")), [], MANIFEST, {})
    assert "Nothing was measured on held-out problems." in text
