"""The base of every section of a recipe, and options that name a function of the user's own."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from .types import LampoError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What is fit for the name of a folder everywhere."""
OWN = "python:"
"""What the name of an own function begins with: python:module.function."""
OWN_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"


class Options(BaseModel):
    """A frozen, validated group of settings: no unknown keys, no numbers that are not finite. Field docstrings are the help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


def _fit_for_a_folder(name: str) -> str:
    if not re.match(NAME, name):
        raise ValueError("it names a folder: give letters without accents, digits, and . - _ inside")
    return name


Name = Annotated[str, AfterValidator(_fit_for_a_folder)]


def own_function_options(values: Any, *, known: Iterable[str]) -> Any:
    """{name: python:module.function, a: 1} as the fields of a section for own functions.

    That is {name: python, function: module.function, options: {a: 1}}. Keys in `known` are settings of the section itself. Other
    values are returned as they are.
    """
    if not isinstance(values, Mapping) or not str(values.get("name", "")).startswith(OWN):
        return values
    own = {key: value for key, value in values.items() if key in known}
    options = {key: value for key, value in values.items() if key not in {*known, "name", "function", "options"}}
    return own | {
        "name": "python",
        "function": str(values["name"]).removeprefix(OWN),
        "options": {**values.get("options", {}), **options},
    }


def make_importable(folders: Iterable[str | Path]) -> None:
    """Have Python look for modules in these folders too, after all others, so that no file there hides a library."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)


def load_function(path: str, what: str) -> Callable[..., Any]:
    """The function at module.function.

    Args:
        path: where it is imported from.
        what: what the user calls it, such as "the reward".

    Raises:
        LampoError: its module cannot be imported, or holds no such function; says where Python looked.
    """
    module_name, _, name = path.rpartition(".")
    make_importable([Path.cwd()])
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise LampoError(f"Importing {what} {path} failed. {where_raised(error)}") from error
        raise LampoError(
            f"There is no module {error.name!r} for {what} {path}. Put {error.name.split('.')[0]}.py beside the recipe "
            f"or into the folder where lampo runs ({Path.cwd()})."
        ) from None
    except (Exception, SystemExit) as error:
        raise LampoError(f"Importing {what} {path} failed. {where_raised(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise LampoError(f"{getattr(module, '__file__', module_name)} has no function {name!r} ({what} {path}).")
    return function


def refuse_unnamed_options(function: Callable[..., Any], options: Iterable[str], what: str) -> None:
    """Refuse options that a function does not name: most often they are misspelt, and they would do nothing.

    Args:
        function: the user's own.
        options: what the recipe gives it.
        what: what the user calls it, such as "The reward mine.length".

    Raises:
        LampoError: there is one, unless the function takes all keywords.

    >>> refuse_unnamed_options(lambda completion, answer, limit: 0, ["limt"], "The reward mine.length")
    Traceback (most recent call last):
    lampo.types.LampoError: The reward mine.length is given 'limt', which its function does not name. It names: completion, answer, limit.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            raise LampoError(
                f"{what} is given {name!r}, which its function does not name. It names: {', '.join(parameters)}."
            )


def call_with(function: Callable[..., Any], given: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """Call a function with what is given, and with what it asks for by name of what is offered.

    `given` is passed by name where the function has all these names, else in this order. Of `offered` a function gets what its
    signature names, and one with ``**`` gets all.

    >>> call_with(lambda a, b, c=0: (a, b, c), {"a": 1, "b": 2}, {"c": 3, "d": 4})
    (1, 2, 3)
    >>> call_with(lambda rewards, groups: (rewards, groups), {"rewards_N": 1, "group_ids_N": 2}, {})
    (1, 2)
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions written in C tell nothing about themselves
        return function(*given.values())
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    keywords = {name: value for name, value in offered.items() if takes_all or name in parameters}
    if all(name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY for name in given):
        return function(**given, **keywords)
    return function(*given.values(), **keywords)


def call_own(function: Callable[..., Any], what: str, given: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """`call_with`, for a function of the user's own.

    Raises:
        LampoError: it asks for what there is not; or it raised or left Python, with its own error and line.
    """
    for name in _asked_in_vain(function, given, offered):
        raise LampoError(
            f"{what} asks for {name!r}, which there is not. It may ask for: {', '.join(offered)}. Or give it a default."
        )
    try:
        return call_with(function, given, offered)
    except LampoError:
        raise
    except (Exception, SystemExit) as error:
        raise LampoError(f"{what} failed. {where_raised(error, function)}") from error


def _asked_in_vain(function: Callable[..., Any], given: Mapping[str, Any], offered: Mapping[str, Any]) -> Iterator[str]:
    """The arguments without a default that `call_with` would not fill."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    filled = given if given.keys() <= parameters.keys() else [*parameters][: len(given)]
    for name, parameter in parameters.items():
        is_one = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if is_one and parameter.default is parameter.empty and name not in filled and name not in offered:
            yield name


def where_raised(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """An exception in one line: its type, its text, and the file and line.

    The line is the last one in the file of `function`, else the one that raised it. An error of the call itself has the function's first.
    """
    code = getattr(function, "__code__", None)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<")
    ]
    if own := [frame for frame in frames if code and frame.filename == code.co_filename] or frames:
        where = f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})"
    else:
        where = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
    return f"{type(error).__name__}: {error}{where}"
