"""Reading recipes: from shipped or own YAML files, with errors that name the key."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ofa.core.config import Config
from ofa.core.errors import RecipeError, nearest
from ofa.core.plugins import plugin_folders
from ofa.pipeline.recipe import Recipe

C = TypeVar("C", bound=Config)


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


def validate(section: type[C], content: Any, source: str) -> C:
    """Validate a section of a recipe, or a whole one, given as plain values.

    Wrong keys and values are a RecipeError that names each, after the source that they come from.
    """
    try:
        return section.model_validate(content)
    except (ValidationError, RecursionError) as error:
        problems = _problems(error, section, content) if isinstance(error, ValidationError) else ["nested too deeply"]
        raise RecipeError(f"{source}: {'; '.join(problems)}") from error


def _problems(error: ValidationError, section: type[Config], content: Any) -> list[str]:
    problems = []
    for problem in error.errors():
        path = _path(problem["loc"], content)
        match problem["type"]:
            case "union_tag_invalid":
                key = problem["ctx"]["discriminator"].strip("'")
                tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
                problems.append(f"{path}.{key} = {tag!r}: choose from {tags}")
            case "extra_forbidden":
                problems.append(f"{path}: unknown key{_suggestion(problem['loc'], section)}")
            case "missing":
                problems.append(f"{path}: missing")
            case "value_error" | "assertion_error":
                message = problem["msg"].partition(", ")[2]  # without the kind of error, which pydantic puts first
                problems.append(f"{path} = {problem['input']!r}: {message}" if path else message)
            case _:
                problems.append(f"{path} = {problem['input']!r}: {problem['msg'].lower()}")
    return problems


def _suggestion(parts: tuple[int | str, ...], section: type[Config]) -> str:
    """Return the nearest keys of the section that an unknown key is in, if that section can be found."""
    fields: Any = section
    for part in parts[:-1]:
        field = getattr(fields, "model_fields", {}).get(part)
        fields = field.annotation if field is not None else None
    names = getattr(fields, "model_fields", None)
    return f"; {nearest(str(parts[-1]), names)}" if names else ""


def _path(parts: tuple[int | str, ...], content: Any) -> str:
    """Return where a problem is in the file, without the names of alternatives that pydantic puts between keys."""
    path = []
    for part in parts:
        inside = content if isinstance(content, dict) else dict(enumerate(content)) if isinstance(content, list) else {}
        if part in inside:
            path.append(str(part))
            content = inside[part]
        elif part == parts[-1] and isinstance(content, dict) and str(part).isidentifier():
            path.append(str(part))  # a key that is missing
    return ".".join(path)
