"""python -m lampo.adapters.verl RECIPE FOLDER [--set a.b=c]: the recipe's problems in verl's form, and the options that read them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...config.load import load_config
from ...config.recipes import find_recipe
from ...types import LampoError
from .parquet import overrides, write_parquet


def main() -> int:
    """Write the files, and print verl's options, one a line."""
    parser = argparse.ArgumentParser(prog="python -m lampo.adapters.verl", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a recipe, or the name of one")
    parser.add_argument("folder", type=Path, help="gets train.parquet and test.parquet")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change a setting of the recipe")
    options = parser.parse_args()
    try:
        config = load_config(find_recipe(options.recipe), options.set)
        counts = write_parquet(config, options.folder)
    except LampoError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{counts['train']:,} problems to train on and {counts['test']:,} to measure on are in {options.folder}.",
        file=sys.stderr,
    )
    print("\n".join(overrides(config, options.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
