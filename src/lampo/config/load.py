"""Recipes -> configurations: YAML, the settings of a method, `--set a.b=c`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..options import OWN
from ..types import LampoError
from .explain import explain_error
from .methods import METHODS, method_settings, under
from .reward_list import rewards_by_title
from .schema import TrainConfig


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-6 is a number (YAML 1.1 wants 1.0e-6) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportUnknownMemberType]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def load_config(recipe: Path, settings: Sequence[str] = (), *, beside: Path | None = None) -> TrainConfig:
    """Read a recipe and apply `a.b=c` settings over it.

    What is written, in the recipe or as a setting, wins over what the method brings. A setting whose key ends in `.name` of a
    section with variants (task, verifier, advantage) replaces that section: the recipe's options for the other variant would make no
    sense. A recipe that names own functions has its folder in `run.imports`, and before it that of the file `beside`, such as a study.

    Raises:
        LampoError: the file is missing or is not YAML, a key is unknown (the nearest known name is given), a value has the
            wrong type or range. All problems are listed at once.
    """
    config = parse_config(read_yaml(recipe, "recipe", "`model:` and `task:`"), str(recipe), settings)
    if config.run.imports or not _names_own_function(config):
        return config
    folders = dict.fromkeys(str(file.absolute().parent) for file in (beside, recipe) if file is not None)
    return config.model_copy(update={"run": config.run.model_copy(update={"imports": list(folders)})})


def read_yaml(file: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` it is, and an example of its keys, go into the LampoError."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise LampoError(f"Cannot read the {what} {file}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise LampoError(f"The {what} {file} is not UTF-8 text: {error}.") from None
    except yaml.YAMLError as error:
        raise LampoError(f"The {what} {file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise LampoError(f"The {what} {file} is empty or no mapping: it needs keys such as {example}.")
    return values


def parse_config(values: Mapping[str, Any], source: str, settings: Sequence[str] = ()) -> TrainConfig:
    """Validate nested values, settings applied; `source` names them in the message of the LampoError."""
    written = copy.deepcopy(dict(values))
    try:
        _name_rewards(written)
        for setting in settings:
            _apply(written, setting)
            _name_rewards(written)
    except ValueError as error:
        raise LampoError(f"{source} has settings that do not hold:\n  rewards: {error}") from None
    name = written.get("method")
    merged = written if name is None else under(method_settings(name), written)
    if isinstance(merged.get("rewards"), dict):  # what adds to the rewards does not take the verifier's away
        merged["rewards"] = {"verifier": {}} | merged["rewards"]
    if name is not None and not METHODS[name].trains:
        merged["training"] = {**(merged.get("training") or {}), "steps": 0}
    try:
        return TrainConfig.model_validate(merged)
    except ValidationError as error:
        lines = sorted({explain_error(detail) for detail in error.errors()})
        raise LampoError(
            f"{source} has settings that do not hold:\n" + "\n".join(f"  {line}" for line in lines)
        ) from None


def _name_rewards(written: dict[str, Any]) -> None:
    if isinstance(written.get("rewards"), list):
        written["rewards"] = rewards_by_title(written["rewards"])


def _names_own_function(config: TrainConfig) -> bool:
    sections = [config.advantage, *config.rewards, *([] if config.verifier is None else [config.verifier])]
    return config.loss.surrogate.startswith(OWN) or any(section.name == "python" for section in sections)


def parse_setting(setting: str) -> tuple[str, Any]:
    """The key and the value of a setting "key=value"; the value is read as YAML.

    Raises:
        LampoError: it has no key or no "=".
    """
    key, separator, text = setting.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise LampoError(
            f"--set {setting}: write it as section.key=value, for example --set optimizer.learning_rate=1e-6."
        )
    try:
        return key.strip(), yaml.load(text, _Loader) if text.strip() else None
    except yaml.YAMLError:
        return key.strip(), text


def _apply(values: dict[str, Any], setting: str) -> None:
    path, value = parse_setting(setting)
    keys = path.split(".")
    target = values
    for depth, key in enumerate(keys[:-1]):
        if not isinstance(target.get(key), dict):
            if target.get(key) is not None:
                raise LampoError(f"--set {setting}: {'.'.join(keys[: depth + 1])} is a value, not a section.")
            target[key] = {}
        target = target[key]
    if keys[-1] == "name" and keys[0] in ("task", "verifier", "advantage") and target.get("name") != value:
        target.clear()
    target[keys[-1]] = value
    if keys == ["model", "path"] and value is not None:  # a model put in for one from scratch
        for key in ("config", "characters"):
            target.pop(key, None)
