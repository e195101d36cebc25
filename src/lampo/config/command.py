"""`lampo config` and `lampo methods`: what the settings are, and what a method sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .explain import describe_config
from .load import load_config
from .methods import METHODS
from .recipes import find_recipe


def print_config(recipe: Path, settings: Sequence[str]) -> None:
    """Every setting of a recipe, as a recipe with comments."""
    print(describe_config(load_config(find_recipe(recipe), settings)))


def list_methods() -> None:
    """The methods as a table, each with the settings that it brings."""
    table = Table("method", "paper", "arXiv", "settings")
    for name, method in METHODS.items():
        settings = [f"{section}: {values}" for section, values in method.settings.items()]
        table.add_row(name, method.paper, method.arxiv or "", "\n".join(settings).replace("'", ""))
    Console().print(table)
