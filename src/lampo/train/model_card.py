"""The model card of a trained model, with the front matter that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..config.schema import TrainConfig
from ..store.metrics import summary
from ..store.rollouts import Record

CARD = "README.md"
_FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_LICENSE = ("license", "license_name", "license_link")


def model_card(
    run: Path, config: TrainConfig, metrics: Sequence[Record], manifest: Mapping[str, Any], base: Mapping[str, Any]
) -> str:
    """What was trained on what and how, what came of it, and how to load it.

    Args:
        run: the run directory, as the user names it.
        config: its recipe.
        metrics: its metrics.
        manifest: its commands and versions.
        base: the front matter of the base model's own card; empty where that is not at hand.
    """
    method = config.method or config.advantage.name
    lora = config.model.lora is not None
    name = _hub_name(config.model.path) or base.get("base_model") or (config.model.path if lora else None)
    front = {
        **({"base_model": name} if name else {}),
        "library_name": "peft" if lora else "transformers",
        "license": "unknown",
        **{key: base[key] for key in _LICENSE if key in base},
        "pipeline_tag": "text-generation",
        "tags": ["lampo", "reinforcement-learning", method],
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {run.resolve().name}",
        f"{'LoRA adapters of' if lora else 'This is'} {_base(config)}, trained on the task `{config.task.name}` with `{method}`.",
        f"## Results\n\n{_results(metrics)}",
        f"## Training\n\n{_training(config, method)}",
        f"## Prompt\n\nThe model was trained on prompts of this form.\n\n{_prompt(config)}",
        f"## Use\n\n{_use(run, config)}",
        f"## How it was made\n\n{_provenance(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


def front_matter(card: Path) -> dict[str, Any]:
    """The front matter of a model card. Empty where there is none."""
    try:
        found = _FRONT_MATTER.match(card.read_text(encoding="utf-8"))
        values = yaml.safe_load(found[1]) if found else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _hub_name(path: str | None) -> str | None:
    """The path, if it is a name on the hub and nothing on this machine."""
    return path if path and _HUB_NAME.fullmatch(path) and not Path(path).exists() else None


def _base(config: TrainConfig) -> str:
    if config.model.path is not None:
        return f"`{config.model.path}`"
    return f"a `{(config.model.config or {})['model_type']}` model from scratch"


def _results(metrics: Sequence[Record]) -> str:
    rows = summary(metrics)
    if not rows:
        return "Nothing was measured on held-out problems."
    lines = [f"| {row.measure} | {row.before} | {row.after} | {row.change} |" for row in rows]
    return "\n".join(
        [
            "Measured on held-out problems before and after reinforcement learning. Brackets hold 95 % intervals.",
            "",
            "| measure | before | after | change |",
            "| --- | ---: | ---: | ---: |",
            *lines,
        ]
    )


def _training(config: TrainConfig, method: str) -> str:
    sampling = config.sampling
    rows = {
        "base model": _base(config),
        "task": f"`{config.task.name}`",
        "method": f"`{method}`",
        "warm start": f"{config.warmstart.steps} supervised steps" if config.warmstart.steps else "none",
        "training": f"{config.training.steps} steps of {sampling.problems_per_step} problems with {sampling.group_size} responses each",
        "temperature": f"{sampling.temperature:g}",
        "longest response": f"{sampling.max_new_tokens} tokens",
        "learning rate": f"{config.optimizer.learning_rate:g}, {config.optimizer.schedule}",
        "seed": f"{config.run.seed}",
    }
    if config.model.lora is not None:
        rows["LoRA"] = f"rank {config.model.lora.rank}, alpha {config.model.lora.alpha:g}"
    return "\n".join(["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())])


def _prompt(config: TrainConfig) -> str:
    fence = "````"
    text = f"{fence}\n{config.prompt.template}\n{fence}"
    if config.prompt.system is not None:
        text += f"\n\nThe system message was:\n\n{fence}\n{config.prompt.system}\n{fence}"
    return text


def _use(run: Path, config: TrainConfig) -> str:
    if config.model.lora is not None and config.model.path is None:
        return f"The base model has no files of its own. Measure the adapters with `lampo eval {run}`."
    loader = "peft" if config.model.lora is not None else "transformers"
    model = "AutoPeftModelForCausalLM" if config.model.lora is not None else "AutoModelForCausalLM"
    lines = (
        [f"from {loader} import {model}", "from transformers import AutoTokenizer"]
        if loader == "peft"
        else [f"from {loader} import {model}, AutoTokenizer"]
    )
    folder = str(run / "model")
    lines += [
        "",
        f"model = {model}.from_pretrained({folder!r})",
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})",
    ]
    return "\n".join(["```python", *lines, "```"])


def _provenance(manifest: Mapping[str, Any]) -> str:
    commands = [
        manifest.get("command"),
        *(entry["command"] for entry in manifest.get("resumed", []) if entry.get("settings", True)),
    ]
    versions = ", ".join(f"{package} {version}" for package, version in manifest.get("versions", {}).items())
    lines = [
        "```sh",
        *filter(None, commands),
        "```",
        "",
        f"With {versions}, Python {manifest.get('python')} on {manifest.get('platform')}.",
    ]
    return "\n".join(lines)
