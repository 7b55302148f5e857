"""The base of every section of a recipe, and the types that sections share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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
