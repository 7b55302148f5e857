"""The base of every section of a recipe: typed, frozen, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A section of a recipe. Each stands beside what it configures; `ofa.pipeline.recipe` joins them."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
