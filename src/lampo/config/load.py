"""Recipes -> configurations: YAML, the settings of a method, `--set a.b=c`."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from ..options import OWN
from ..store.text import HALF
from ..types import LampoError
from .explain import explain_errors
from .methods import METHODS, method_settings, under
from .reward_list import rewards_by_title
from .schema import TrainConfig

MERGE = "tag:yaml.org,2002:merge"
MOST_VALUES, DEEPEST = 100_000, 50
"""Of a YAML file, aliases written out: far more than any recipe has, and few enough to be read at once."""


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-6 is a number (YAML 1.1 wants 1.0e-6), a date is text, and a repeated key is an error."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE]  # pyright: ignore[reportUnknownMemberType]
        for key, count in Counter(map(repr, keys)).items():
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _load_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        ValueError: it is not valid, refers to itself, is nested too deeply or is too large with its aliases written out.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {}, ())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    # what the constructors of numbers, booleans and dates let through, under tags such as !!int
    except (LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"a value is not of the type that its tag says ({error})") from None


def _measure(node: yaml.Node, sizes: dict[yaml.Node, int], above: tuple[yaml.Node, ...]) -> int:
    """How many values a node stands for, its aliases written out."""
    if node in sizes:
        return sizes[node]
    if node in above:
        raise ValueError(f"it refers to itself{node.start_mark}")
    if len(above) >= DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep{node.start_mark}")
    size = 1
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for each in child if isinstance(child, tuple) else (child,):
                size += _measure(each, sizes, (*above, node))
    if size > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values, aliases written out{node.start_mark}")
    sizes[node] = size
    return size


def load_config(recipe: Path, settings: Sequence[str] = (), *, beside: Path | None = None) -> TrainConfig:
    """Read a recipe and apply `a.b=c` settings over it.

    What is written, in the recipe or as a setting, wins over what the method brings. A setting whose key ends in `.name` of a
    section with variants (task, verifier, advantage) replaces that section: the recipe's options for the other variant would make no
    sense. A recipe that names own functions has its folder in `run.imports`, and before it that of the file `beside`, such as a study.

    Raises:
        LampoError: the file is missing or is not YAML, a key is unknown (the nearest known name is given), a value has the
            wrong type or range. All problems are listed at once.
    """
    values = read_yaml(recipe, "recipe", "`model:` and `task:`")
    if "recipe" in values and "methods" in values:
        raise LampoError(f"{recipe} is a study and no recipe. Run it with: lampo compare {recipe}")
    config = parse_config(values, str(recipe), settings)
    if config.run.imports or not names_own_function(config):
        return config
    folders = dict.fromkeys(str(file.absolute().parent) for file in (beside, recipe) if file is not None)
    return config.model_copy(update={"run": config.run.model_copy(update={"imports": list(folders)})})


def read_yaml(file: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping in a YAML file. `what` it is, and an example of its keys, go into the LampoError."""
    try:
        values = _load_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LampoError(f"Cannot read the {what} {file}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise LampoError(f"The {what} {file} is not UTF-8 text: {error}.") from None
    except ValueError as error:
        raise LampoError(f"The {what} {file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise LampoError(f"The {what} {file} is empty or no mapping: it needs keys such as {example}.")
    return values


def parse_config(values: Mapping[str, Any], source: str, settings: Sequence[str] = ()) -> TrainConfig:
    """Validate nested values, settings applied. `source` names them in the message of the LampoError."""
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
    if unusable := [*_find_unusable(merged)]:
        raise LampoError(f"{source} has settings that do not hold:\n" + "\n".join(f"  {line}" for line in unusable))
    try:
        return TrainConfig.model_validate(merged)
    except ValidationError as error:
        raise LampoError(f"{source} has settings that do not hold:\n{explain_errors(error)}") from None


def differing(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ, by section.key, with the value in each. None where one lacks it."""
    first, second = (dict(_flat(config.model_dump(mode="json"))) for config in (a, b))
    return {key: (first.get(key), second.get(key)) for key in first | second if first.get(key) != second.get(key)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name_rewards(written: dict[str, Any]) -> None:
    if isinstance(written.get("rewards"), list):
        written["rewards"] = rewards_by_title(written["rewards"])


def _find_unusable(value: Any, where: str = "") -> Iterator[str]:
    """What no setting can be, whatever its type says: a number that no library takes, text that no file takes."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _find_unusable(key, f"{where} (a key)".strip())
            yield from _find_unusable(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _find_unusable(inner, f"{where}[{number}]")
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield f"{where}: the number is too large, it has {value.bit_length()} bits (most: 63)"
    elif isinstance(value, str) and HALF.search(value):
        yield f"{where}: the text holds half a character ({ascii(value)[:40]})"


def names_own_function(config: TrainConfig) -> bool:
    """Whether a recipe names a function of the user's own: an advantage, a surrogate, a reward or a verifier."""
    sections = [config.advantage, *config.rewards, *([] if config.verifier is None else [config.verifier])]
    return config.loss.surrogate.startswith(OWN) or any(section.name == "python" for section in sections)


def parse_setting(setting: str) -> tuple[str, Any]:
    """The key and the value of a setting "key=value". The value is read as YAML.

    Raises:
        LampoError: it has no key or no "=".
    """
    key, separator, text = setting.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise LampoError(
            f"--set {setting}: write it as section.key=value, for example --set optimizer.learning_rate=1e-6."
        )
    try:
        return key.strip(), _load_yaml(text)
    except ValueError:
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
