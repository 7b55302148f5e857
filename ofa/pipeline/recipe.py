"""Recipes: the YAML file that says family, data, training, device, search and export."""

from typing import Annotated, Any

import yaml
from pydantic import Field

from ofa.core.config import Config
from ofa.cost.latency.profile import TableConfig
from ofa.data.config import DataConfig
from ofa.predict.mlp import PredictorConfig
from ofa.train.config import TrainConfig


class FamilyConfig(Config):
    """Which family, with which options. `num_classes` and `in_channels` come from the data."""

    name: str
    """A registered family, or the path of a Python file that defines `family(...)`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the family, such as `resolutions`, `width_mult`, `dropout`; see its file in `supernets/`."""
    couple: dict[str, str] = Field(default_factory=dict)
    """Choices that follow others, as patterns: `{"stage*.block*.expand": "stage*.depth"}`. Each `*` of the second
    stands for what that of the first matched (CompOFA, arXiv 2104.12642)."""


class ProfileConfig(TableConfig):
    """The device of the latency table, and how much is measured how precisely."""

    device: str = "ort-cpu"
    """A name that `ofa devices` lists."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the device, such as `threads`; see its file in `export/devices/`."""


class SampleConfig(Config):
    """Which subnets are measured for the accuracy predictor."""

    archs: int = Field(300, ge=10, le=1_000_000)
    """Number of subnets; the smallest and the largest are always among them."""
    images: int = Field(5000, ge=1)
    """Validation images per subnet, at most."""
    calibration_images: int = Field(1024, ge=2)
    """Training images on which BatchNorm statistics are re-estimated."""


class SearchConfig(Config):
    """How the Pareto front is searched and levels are chosen from it."""

    population: int = Field(200, ge=4, le=100_000)
    """Archs that survive each generation, and children per generation."""
    generations: int = Field(60, ge=1, le=100_000)
    """Generations of each search."""
    rounds: int = Field(3, ge=1, le=1000)
    """Rounds of searching, measuring archs of the predicted front, and refitting the predictor."""
    verify: int = Field(24, ge=2, le=10_000)
    """Archs of the predicted front whose accuracy is measured in each round."""
    levels: int = Field(4, ge=1, le=1000)
    """Archs to deploy, spread over the front, latencies at least 10% apart; ignored with `latency_limits_ms`."""
    latency_limits_ms: list[Annotated[float, Field(gt=0)]] | None = Field(None, min_length=1)
    """Deploys the most accurate arch under each of these latencies, instead of `levels`."""
    min_top1_percent: float = Field(0.0, ge=0, le=100)
    """Archs below this accuracy, estimated from validation images and the predictor, are not deployed."""


class ExportConfig(Config):
    """How levels are exported."""

    max_abs_diff: float = Field(1e-4, gt=0)
    """Largest difference of logits allowed between ONNX and PyTorch."""


class Recipe(Config):
    """Everything that a run is made from."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name of the run directory, `runs/NAME`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of weights, batches, archs, predictor and search."""
    family: FamilyConfig
    data: DataConfig
    train: TrainConfig
    profile: ProfileConfig = ProfileConfig()
    sample: SampleConfig = SampleConfig()
    predictor: PredictorConfig = PredictorConfig()
    search: SearchConfig = SearchConfig()
    export: ExportConfig = ExportConfig()

    def to_yaml(self) -> str:
        """Return the recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
