"""Recipes: the YAML file that says family, data, training, device, search and export."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError

from ofa.core.config import Config
from ofa.core.errors import RecipeError
from ofa.cost.latency.profile import TableConfig
from ofa.data.config import DataConfig
from ofa.predict.mlp import PredictorConfig
from ofa.train.config import TrainConfig

C = TypeVar("C", bound=Config)


class FamilyConfig(Config):
    """Which family, with which options. `num_classes` and `in_channels` come from the data."""

    name: str
    """A registered family, or the path of a Python file that defines `family(...)`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Such as `resolutions`, `width_mult`, `dropout`; see the family's file in `supernets/`."""
    couple: dict[str, str] = Field(default_factory=dict)
    """Choices that are not free but grow with others, as patterns: `{"stage*.block*.expand": "stage*.depth"}`, each `*`
    of the second being what that of the first matched (CompOFA, arXiv 2104.12642)."""


class ProfileConfig(TableConfig):
    """What the latency table is measured on, how much and how precisely."""

    device: str = "ort-cpu"
    """A name that `ofa devices` lists."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Such as `threads`; see the device's file in `export/`."""


class SampleConfig(Config):
    """Which subnets are measured for the accuracy predictor."""

    archs: int = Field(300, ge=10)
    """How many; the smallest and the largest are always among them."""
    images: int = Field(5000, ge=1)
    """Validation images per arch, at most."""
    calibration_images: int = Field(1024, ge=1)
    """Training images that BatchNorm statistics are re-estimated on."""


class SearchConfig(Config):
    """How the front is searched and levels are picked from it."""

    population: int = Field(200, ge=4)
    """Archs that survive each generation, and children that it has."""
    generations: int = Field(60, ge=1)
    """Fixed, so that the search ends."""
    rounds: int = Field(3, ge=1)
    """Of searching, measuring archs of the predicted front, and fitting the predictor to them as well."""
    verify: int = Field(24, ge=2)
    """How many archs of the predicted front have their accuracy measured in each round."""
    levels: int = Field(4, ge=1)
    """How many archs to deploy, spread over the front, latencies 10% apart or more; `latency_limits_ms` goes before."""
    latency_limits_ms: list[Annotated[float, Field(gt=0)]] | None = Field(None, min_length=1)
    """The most accurate arch under each of these latencies, instead of `levels`."""
    min_top1_percent: float = Field(0.0, ge=0, le=100)
    """Levels below this accuracy, estimated from validation images and the predictor, are not deployed."""


class ExportConfig(Config):
    """How levels are exported."""

    max_abs_diff: float = Field(1e-4, gt=0)
    """Largest difference of logits allowed between ONNX and PyTorch."""


class Recipe(Config):
    """Everything that a run is made from."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Names the run directory, `runs/NAME`."""
    seed: int = Field(0, ge=0)
    """Of everything random: weights, batches, archs, search."""
    family: FamilyConfig
    data: DataConfig
    train: TrainConfig
    profile: ProfileConfig = ProfileConfig()
    sample: SampleConfig = SampleConfig()
    predictor: PredictorConfig = PredictorConfig()
    search: SearchConfig = SearchConfig()
    export: ExportConfig = ExportConfig()

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("supernets"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name: str) -> Recipe:
    """Reads a recipe by the name of a shipped one or by path.

    Raises:
        RecipeError: unreadable, or a key or value is wrong; each is named with its path in the file.
    """
    path = shipped().get(name, Path(name))
    if not path.is_file():
        raise RecipeError(f"no recipe {name!r}; shipped: {', '.join(shipped())}, or give a path to a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, such as `name: digits`")
    return checked(Recipe, content, str(path))


def checked(section: type[C], content: Any, where: str) -> C:
    """A section of a recipe, or a whole one, from plain values.

    Raises:
        RecipeError: a key or value is wrong; each is named, and `where` it was.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error, content)}") from error


def _explain(error: ValidationError, content: Any) -> str:
    problems = []
    for problem in error.errors():
        where = _path(problem["loc"], content)
        if problem["type"] == "union_tag_invalid":
            key = problem["ctx"]["discriminator"].strip("'")
            problems.append(f"{where}.{key} = {problem['ctx']['tag']!r}: choose from {problem['ctx']['expected_tags']}")
        elif problem["type"] == "extra_forbidden":
            problems.append(f"{where}: unknown key")
        elif problem["type"] == "missing":
            problems.append(f"{where}: missing")
        else:
            problems.append(f"{where} = {problem['input']!r}: {problem['msg'].lower()}")
    return "; ".join(problems)


def _path(parts: tuple[int | str, ...], content: Any) -> str:
    """Where a problem is in the file, without the names of alternatives that pydantic puts between keys."""
    path = []
    for part in parts:
        inside = content if isinstance(content, dict) else dict(enumerate(content)) if isinstance(content, list) else {}
        if part in inside:
            path.append(str(part))
            content = inside[part]
        elif part == parts[-1] and isinstance(content, dict) and str(part).isidentifier():
            path.append(str(part))  # a key that is missing
    return ".".join(path)
