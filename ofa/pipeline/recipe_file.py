"""Reading recipes: from shipped or own YAML files, with errors that name the key."""

from pathlib import Path

import yaml

from ofa.core.config import validate
from ofa.core.errors import RecipeError, nearest
from ofa.core.plugins import plugin_folders
from ofa.pipeline.recipe import Recipe


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes in the packages of the entry-point group `ofa.recipes`, by name."""
    return {path.stem: path for folder in plugin_folders("ofa.recipes") for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name: str) -> Recipe:
    """Read a recipe by the name of a shipped one or by path.

    Raises:
        RecipeError: unreadable, or a key or value is wrong; each is named with its path in the file.
    """
    path = shipped_recipes().get(name, Path(name).expanduser())
    if not path.is_file():
        raise RecipeError(f"no recipe {name!r}; {nearest(name, shipped_recipes())}, or give the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, such as `name: digits`")
    return validate(Recipe, content, str(path))
