"""The recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from ..messages import did_you_mean
from ..types import LampoError

_PACKAGE = Path(__file__).resolve().parents[1]


def packaged_recipes() -> dict[str, Path]:
    """Every recipe of the package by its name. Those of the repository where the package runs from its source."""
    folders = _PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes"
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_recipe(recipe: Path) -> Path:
    """The file of a recipe: a path that exists, or a name without folder and ending, which is that of a packaged recipe.

    Raises:
        LampoError: there is neither; names the nearest packaged recipe, and lists all of them after a name.
    """
    packaged = packaged_recipes()
    if recipe.exists():
        return recipe
    if recipe.name != str(recipe) or recipe.suffix in (".yaml", ".yml"):
        exact = f" The package has one of that name: {recipe.stem}." if recipe.stem in packaged else ""
        beside = [file.name for file in recipe.parent.iterdir()] if recipe.parent.is_dir() else []  # a run, perhaps
        guess = exact or did_you_mean(recipe.stem, packaged) or did_you_mean(recipe.name, beside)
        raise LampoError(f"Cannot read the recipe {recipe}: no such file.{guess}")
    if str(recipe) not in packaged:
        raise LampoError(
            f"There is no recipe {str(recipe)!r}.{did_you_mean(str(recipe), packaged)}\n"
            f"Name a YAML file, or one of the package: {', '.join(packaged)}."
        )
    return packaged[str(recipe)]
