"""What a configuration says to a person: every setting with its meaning, and what is wrong with one."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..messages import did_you_mean, nearest
from ..options import OWN
from .schema import TrainConfig


def explain_errors(error: ValidationError, root: type[BaseModel] = TrainConfig) -> str:
    """Validation errors of a recipe, or of another file that `root` describes, in plain words, a line each."""
    return "\n".join(f"  {line}" for line in sorted({_explained(detail, root) for detail in error.errors()}))


def _explained(detail: Any, root: type[BaseModel]) -> str:
    """One of them, its key as the user writes it."""
    keys, section = _written_keys(detail["loc"], root)
    where = ".".join(keys)
    match detail["type"]:
        case "extra_forbidden":
            known = [] if section is None else list(section.model_fields)
            near = nearest(keys[-1], known, cutoff=0.5)
            prefix = ".".join(keys[:-1])
            guess = f" Did you mean {prefix + '.' if prefix else ''}{near}?" if near else f" Known: {', '.join(known)}"
            return f"{where} is not a setting.{guess}"
        case "missing":
            return f"{where} is required"
        case "union_tag_not_found":
            return f"{where} needs a `name` (one of {detail['ctx'].get('discriminator', 'name')})"
        case "union_tag_invalid":
            return f"{where}.name is {detail['ctx']['tag']!r}, but known are {_known(**detail['ctx'])}"
        case "model_attributes_type" | "model_type" | "dict_type" if not isinstance(detail["input"], dict | list):
            return (
                f"{where} is a section: write {where}: {{name: {detail['input']}}}"
                if _has_variants(where, root)
                else _plainly(where, detail)
            )
        case "list_type" if where == "rewards":
            return "rewards is a list: write rewards: [{name: verifier}], with an entry for each further reward"
        case _:
            return _plainly(where, detail)


def _plainly(where: str, detail: Any) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
    return f"{where}: {message}{given}" if where else message  # the recipe as a whole has no key


def _has_variants(section: str, root: type[BaseModel]) -> bool:
    """Whether a section is chosen by its `name`."""
    field = root.model_fields.get(section)
    return field is not None and len(_sections(field.annotation)) > 1


def _known(tag: str, expected_tags: str, **_: Any) -> str:
    """The names that a section may have, with a guess. Of one's own function there is a name too."""
    names = [name.strip("'") for name in expected_tags.split(", ")]
    listed = ", ".join(name for name in names if name != "python")
    if "python" not in names:
        return f"{listed}.{did_you_mean(tag, names)}"
    own = f"{OWN}{tag}" if "." in tag else f"{OWN}module.function"
    return f"{listed}, and {own} for a function of your own.{did_you_mean(tag, names)}"


def _written_keys(location: Sequence[str | int], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """Pydantic's location as keys of the file, without the tags of unions, and the section class of the last key."""
    keys: list[str] = []
    holder: type[BaseModel] | None = None
    sections: dict[str, type[BaseModel]] = {"": root}
    tagged = False  # a union of plain types, such as `int | Literal["auto"]`, is followed by the type that was tried
    for key in map(str, location):
        if key in sections:  # the tag of a union of sections
            sections = {"": sections[key]}
            continue
        if tagged:
            tagged = False
            continue
        if key.isdigit() and keys:  # an entry of a list
            keys[-1] += f"[{key}]"
            continue
        keys.append(key)
        holder = sections.get("")
        field = holder.model_fields.get(key) if holder else None
        sections = _sections(field.annotation) if field else {}
        tagged = field is not None and not sections and _num_types(field.annotation) > 1
    return keys, holder


def _num_types(annotation: Any) -> int:
    """How many types a union admits, None aside. 1 for what is no union."""
    if get_origin(annotation) not in (typing.Union, types.UnionType):
        return 1
    return sum(argument is not type(None) for argument in get_args(annotation))


def _sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The section classes that an annotation admits, by their `name`. A single one under the empty key."""
    found = list(_models(annotation))
    if len(found) == 1:
        return {"": found[0]}
    return {get_args(model.model_fields["name"].annotation)[0]: model for model in found}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, typing.Union, types.UnionType, list):
        for argument in get_args(annotation):
            yield from _models(argument)


def dump_config(config: BaseModel) -> str:
    """Every setting as plain YAML, a recipe that gives this configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe_config(config: BaseModel, *, indent: int = 0) -> str:
    """Every setting as YAML with its meaning, type and default as comments. It loads as a recipe."""
    lines: list[str] = []
    pad = " " * indent
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        meaning = " ".join((field.description or "").split())
        if isinstance(value, BaseModel):
            lines += [
                "",
                f"{pad}# {meaning}" if meaning else "",
                f"{pad}{name}:",
                describe_config(value, indent=indent + 2),
            ]
            continue
        lines.append(f"{pad}# {meaning} ({_type_text(field)})")
        plain = config.model_dump(mode="json", include={name})[name]  # sections in a list have no lines of their own
        lines.append(f"{pad}{name}: {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(line for line in lines if line or indent == 0)


def _type_text(field: FieldInfo) -> str:
    bounds = "".join(
        f", {sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(rule, name, None) is not None
    )
    kind = f"{_kind(field.annotation)}{bounds}"
    if field.is_required():
        return f"{kind}, required"
    default = field.get_default(call_default_factory=True)
    return f"{kind}, default {_written(default)}"


def _kind(annotation: Any) -> str:
    """A type as a person writes it: choices by their values, sections by their names."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if sections := [model for model in _models(annotation) if "name" in model.model_fields]:
        names = ", ".join(str(get_args(model.model_fields["name"].annotation)[0]) for model in sections)
        return f"list of {names}" if origin is list else f"one of {names}"
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_kind(argument) for argument in arguments if argument is not type(None))
    if origin in (list, tuple):
        return f"{origin.__name__} of {', '.join(dict.fromkeys(map(_kind, arguments)))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"section with {', '.join(annotation.model_fields)}"
    if origin is dict:
        return "mapping"
    return {str: "text", int: "whole number", float: "number", bool: "true | false"}.get(annotation, str(annotation))


def _written(value: Any) -> str:
    """A default as YAML in one line."""
    plain = (
        [entry.model_dump() for entry in value]
        if isinstance(value, list) and value and isinstance(value[0], BaseModel)
        else value
    )
    return "unset" if plain is None else json.dumps(plain, ensure_ascii=False)
