"""What the code blocks of README.md and docs/*.md are held to. `conftest.py` of the repository hands it to Sybil, which finds the blocks.

    ```python    is run, alone, in an empty folder: a block has to work as it stands.
    ```yaml      is read as a recipe, as some sections of one, or as a study, and every setting of it is checked.
    ```bash      is not run, for most of it trains, opens a browser or installs. The command line has to accept each `lampo` command and
                 each `--set` of it. Scripts, make targets and extras have to exist. Any other program is refused, but those in ELSEWHERE.

A block that cannot pass says why in the comment of Sybil's that skips it: <!--- skip: next, "why" -->.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import typer.main
from sybil import Example
from sybil.evaluators.python import PythonEvaluator

from lampo.cli import app
from lampo.compare.study import load_study
from lampo.config.load import load_config, parse_config, read_yaml

ROOT = Path(__file__).resolve().parents[2]
ANY_RECIPE = {"run": {"name": "documented"}, "model": {"path": "a-model"}, "task": {"name": "arithmetic"}}
ELSEWHERE = {"export", "cd", "git", "kill", "nvidia-cuda-mps-control", "ssh", "hf", "apt-get"}
"""Programs that are not ours, and are not looked at."""

run_python = PythonEvaluator()


def python_block(example: Example) -> None:
    """Run it, knowing nothing of the blocks before it."""
    example.namespace["monkeypatch"].chdir(example.namespace["tmp_path"])
    for name in set(example.namespace) - {"monkeypatch", "tmp_path"}:
        del example.namespace[name]
    run_python(example)


def yaml_block(example: Example) -> None:
    """Check it as what it is: a study has `methods`, and anything else is a recipe or a part of one."""
    folder: Path = example.namespace["tmp_path"]
    file = folder / "block.yaml"
    file.write_text(example.parsed)
    values = read_yaml(file, "block", "")
    shown = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    pages = "".join(page.read_text(encoding="utf-8") for page in shown)
    for function in re.findall(r"python:\w+\.(\w+)", example.parsed):
        assert f"def {function}(" in pages, f"no page shows the function {function}"
    if "methods" in values:
        (folder / values["recipe"]).write_text(quickstart().read_text())
        plan = load_study(file)
        plan.test({})
    else:
        parse_config(ANY_RECIPE | values, f"the block in line {example.line}")


def bash_block(example: Example) -> None:
    """Check every command of it."""
    for line in example.parsed.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            check_command(words)


def check_command(words: Sequence[str]) -> None:
    """Refuse a command that would not start."""
    program, *arguments = words
    if program in ("pip", "python") and arguments[:2] == ["-m", "pip"]:
        arguments = arguments[2:]
    if program == "lampo":
        check_lampo(arguments)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert arguments[0] in targets, f"the Makefile has no target {arguments[0]}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [
            extra
            for word in arguments
            for found in re.findall(r"lampo\[(.*)\]|^\.\[(.*)\]", word)
            for extra in "".join(found).split(",")
        ]
        assert set(named) <= set(extras), f"pyproject.toml has not all of the extras {named}"
    elif program == "python":
        module = arguments[1].replace(".", "/") + ".py" if arguments[0] == "-m" else arguments[0]
        assert (ROOT / module).is_file(), f"there is no {module}"
    else:
        assert program in ELSEWHERE, f"{program} is not known here: check it, or name it in ELSEWHERE"


def check_lampo(arguments: Sequence[str]) -> None:
    """Have the command line parse it, and the recipe take its settings; files that only the reader has are not looked for."""
    command: Any = typer.main.get_command(app)
    if all(word.startswith("-") for word in arguments):  # such as --version, which would end the test
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(arguments) <= known, f"lampo has no option {arguments}"
        return
    context, rest, name = typer.Context(command, info_name="lampo"), list(arguments), "lampo"
    while hasattr(command, "resolve_command"):  # a group of commands
        if not rest and command.invoke_without_command:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = typer.Context(command, info_name=name, parent=context)
    context = command.make_context(name, rest, parent=context.parent)
    settings = context.params.get("settings") or []
    if "recipe" in context.params:
        recipe = recipe_of(context.params["recipe"])
        load_config(recipe, settings)


def recipe_of(path: Path) -> Path:
    """The recipe that is named; the quickstart for one that only the reader has, or for a run."""
    for found in (ROOT / path, ROOT / "recipes" / f"{path}.yaml"):
        if found.is_file():
            return found
    return quickstart()


def quickstart() -> Path:
    return ROOT / "recipes" / "quickstart.yaml"
