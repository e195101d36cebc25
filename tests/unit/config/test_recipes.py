from pathlib import Path

import pytest

from lampo.config.load import load_config
from lampo.config.recipes import find_recipe, packaged_recipes
from lampo.types import LampoError

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_package_has_the_recipes_of_the_repository() -> None:
    assert packaged_recipes() == {file.stem: file for file in sorted(RECIPES.glob("*.yaml"))}


@pytest.mark.parametrize("name", packaged_recipes())
def test_each_is_found_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_config(find_recipe(Path(name)))


def test_what_lies_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("run: {name: mine}")
    assert find_recipe(Path("quickstart")) == Path("quickstart")


def test_a_name_like_none_lists_all() -> None:
    with pytest.raises(LampoError) as caught:
        find_recipe(Path("zzz"))
    assert all(name in str(caught.value) for name in packaged_recipes())
    assert "Did you mean" not in str(caught.value)
