"""The base of every section of a recipe, the types that sections share, and what is wrong with given values."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ofa.core.errors import OfaError, RecipeError, nearest

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """A section of a recipe: typed, immutable, unknown keys refused. It lives beside the code that it configures."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _expand_user(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error  # pydantic reports only a ValueError as a wrong value


UserPath = Annotated[Path, Field(strict=False), AfterValidator(_expand_user)]
"""A path in which a leading `~` or `~user` stands for a home directory."""


def validate(section: type[C], content: Any, source: str, error: type[OfaError] = RecipeError) -> C:
    """Validate a section of a recipe, or a whole one, given as plain values.

    Wrong keys and values are an `error` that names each, after the source that they come from.
    """
    try:
        return section.model_validate(content)
    except ValidationError as refusal:
        raise error(f"{source}: {'; '.join(_problems(refusal, section, content))}") from refusal
    except RecursionError as refusal:
        raise error(f"{source}: nested too deeply") from refusal


def _problems(error: ValidationError, section: type[Config], content: Any) -> list[str]:
    sentences = []
    for problem in error.errors():
        path = _path(problem["loc"], content)
        match problem["type"]:
            case "union_tag_invalid":
                key = problem["ctx"]["discriminator"].strip("'")
                tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
                sentences.append(f"{path}.{key} = {tag!r}: choose from {tags}")
            case "extra_forbidden":
                sentences.append(f"{path}: unknown key{_suggestion(problem['loc'], section)}")
            case "missing":
                sentences.append(f"{path}: missing")
            case "value_error" | "assertion_error":
                message = problem["msg"].partition(", ")[2]  # without the kind of error, which pydantic puts first
                sentences.append(f"{path} = {problem['input']!r}: {message}" if path else message)
            case _:
                value = f"{path} = {problem['input']!r}" if path else f"{problem['input']!r:.80}"
                sentences.append(f"{value}: {problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return sentences


def _suggestion(parts: tuple[int | str, ...], section: type[Config]) -> str:
    """Return the nearest keys of the section that an unknown key is in, if that section can be found."""
    fields: Any = section
    for part in parts[:-1]:
        field = getattr(fields, "model_fields", {}).get(part)
        fields = field.annotation if field is not None else None
    names = getattr(fields, "model_fields", None)
    if names is None:
        return ""
    return f"; {nearest(str(parts[-1]), names)}" if names else "; there are none"


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
