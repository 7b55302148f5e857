"""Recipes: the YAML file that says family, data, training, targets, search and export."""

from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from ofa.core.config import Config, UserPath
from ofa.core.errors import SearchError
from ofa.cost.energy import PowerConfig
from ofa.cost.latency.profile import TableConfig
from ofa.data.config import DataConfig
from ofa.pipeline.predictor import PredictorConfig
from ofa.search.algorithm import check_settings
from ofa.train.config import TrainConfig
from ofa.train.finetune import FinetuneConfig


class FamilyConfig(Config):
    """Which family, with which options. `num_classes` and `in_channels` come from the data."""

    name: str
    """A registered family, or the path of a Python file that defines `family(...)`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the family, such as `resolutions`, `width_mult`, `dropout`; see its file in `supernets/`."""
    couple: dict[str, str] = Field(default_factory=dict)
    """Choices that follow others, as patterns: `{"stage*.block*.expand": "stage*.depth"}`. Each `*` of the second
    stands for what that of the first matched (CompOFA, arXiv 2104.12642)."""


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

    over: Literal["predictions", "measurements"] = "predictions"
    """What is searched: millions of predicted archs, of which some are measured in each round; or measurements alone,
    `verify` archs in each of so many rounds, which the algorithm asks for and is told the accuracies of."""
    algorithm: str = "nsga2"
    """What searches: `nsga2`, or another one that `ofa.search.create` names."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of that algorithm, such as `{mutate_probability: 0.2}`; see its file in `ofa/search/`."""
    population: int = Field(200, ge=4, le=100_000)
    """Archs that are evaluated at once, and that survive each generation."""
    generations: int = Field(60, ge=1, le=100_000)
    """How often that many archs are evaluated in each search."""
    rounds: int = Field(3, ge=1, le=1000)
    """Rounds of searching, measuring archs of the predicted front, and refitting the predictor."""
    verify: int = Field(24, ge=2, le=10_000)
    """Archs of the predicted front whose accuracy is measured in each round."""
    judge: int = Field(0, ge=0, le=10_000)
    """Archs beside the front that are measured in the end, to say how far it is from the best one known; the better
    ones among them are deployed. Each takes as long as one of `verify`; the report says how many minutes in all."""

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        if "population" in self.settings:
            raise ValueError("settings has 'population', which is a key of search itself; move it out of settings")
        try:
            check_settings(self.algorithm, self.settings)
        except SearchError as error:
            raise ValueError(str(error)) from error
        if (self.over, self.algorithm) == ("measurements", "successive_halving"):
            raise ValueError(
                "successive_halving measures on few images first, and a run on all; choose another algorithm"
            )
        return self


class ExportConfig(Config):
    """How levels are exported."""

    max_abs_diff: float = Field(1e-4, gt=0)
    """Largest difference of logits allowed between ONNX and PyTorch."""


Cost = Literal["latency_ms", "energy_mj", "macs_m", "params_m", "size_mib", "peak_activation_mib"]
Precision = Literal["float32", "float16", "int8_dynamic", "int8_static", "auto"]


class TargetConfig(Config):
    """One thing to deploy to: a device with its options, a precision, and the limits to meet there."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Name of its folder, `runs/NAME/targets/TARGET`."""
    device: str = "ort-cpu"
    """A name that `ofa devices` lists."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the device, such as `threads`; see its file in `export/devices/`."""
    batch: int = Field(1, ge=1, le=4096)
    """Images in one run, whose latency is measured."""
    precision: Precision = "float32"
    """Precision of the levels; `auto` searches it together with the arch, among those that the device runs."""
    format: str = "onnx"
    """Format of the model files: `onnx`; `mnn`, `ncnn`, `litert` or `executorch` for the device of that runtime; `web`,
    ONNX in a bundle that is a web site."""
    format_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the format: `opset`, a fixed `batch`, `ort` to write ONNX Runtime's own files, too."""
    table: UserPath | None = None
    """A latency table of this family that was measured elsewhere; nothing is measured then, and the device stays
    unused."""
    objective: Cost = "latency_ms"
    """The cost that the Pareto front trades for accuracy."""
    limits: list[dict[Cost, Annotated[float, Field(gt=0)]]] | None = Field(None, min_length=1)
    """Deploys the most accurate arch within each of these sets of limits, such as `{latency_ms: 2.0, size_mib: 1.0}`,
    instead of `levels`."""
    levels: int = Field(4, ge=1, le=1000)
    """Archs to deploy, spread over the front, at least 10% apart in the objective; ignored with `limits`."""
    min_top1_percent: float = Field(0.0, ge=0, le=100)
    """Archs below this accuracy, estimated from validation images and the predictor, are not deployed."""
    max_accuracy_drop_percent: float = Field(1.0, ge=0, le=100)
    """Largest accuracy, in points, that an arch may lose by its precision, estimated from validation images."""
    power: PowerConfig | None = None
    """The power that the device draws; required for `energy_mj`."""

    @model_validator(mode="after")
    def _check_costs(self) -> Self:
        if twice := sorted({"precision", "batch"} & self.options.keys()):
            raise ValueError(f"options has {twice[0]!r}, which is a key of the target itself; move it out of options")
        if (fixed := self.format_options.get("batch", self.batch)) != self.batch:
            raise ValueError(f"format_options.batch = {fixed!r} and batch = {self.batch} differ; make them equal")
        if any(not limits for limits in self.limits or ()):
            raise ValueError("limits has an empty entry; name at least one cost, such as {latency_ms: 2.0}")
        if self.power is None and "energy_mj" in (self.objective, *(cost for one in self.limits or () for cost in one)):
            raise ValueError("energy_mj requires the power of the device; add power: {busy_w: WATTS}")
        if self.table is not None and self.precision == "auto":
            raise ValueError("precision auto requires a latency table for each precision; name the one of `table`")
        return self


class Recipe(Config):
    """Everything that a run is made from."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name of the run directory, `runs/NAME`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of weights, batches, archs, predictor and search."""
    family: FamilyConfig
    data: DataConfig
    train: TrainConfig
    targets: list[TargetConfig] = Field([TargetConfig(name="local")], min_length=1)
    """What to deploy to; by default this computer."""
    profile: TableConfig = TableConfig()
    sample: SampleConfig = SampleConfig()
    predictor: PredictorConfig = PredictorConfig()
    search: SearchConfig = SearchConfig()
    finetune: FinetuneConfig | None = None
    """Trains each level on, before it is exported; null leaves its weights as they were inherited."""
    export: ExportConfig = ExportConfig()

    @model_validator(mode="before")
    @classmethod
    def _check_layout(cls, content: Any) -> Any:
        moved = {"profile": ("device", "options"), "search": ("levels", "latency_limits_ms", "min_top1_percent")}
        sections = {name: content.get(name) for name in moved} if isinstance(content, dict) else {}
        old = [f"{name}.{key}" for name, keys in moved.items() for key in keys if key in (sections.get(name) or ())]
        if old:
            raise ValueError(
                f"{', '.join(old)} moved to the list of targets, for example "
                "`targets: [{name: local, device: ort-cpu, levels: 4}]` or `limits: [{latency_ms: 2.0}]`"
            )
        return content

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [target.name for target in self.targets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"targets has the name {twice[0]!r} twice; give each target a name of its own")
        auto = [target.name for target in self.targets if target.precision == "auto"]
        if self.search.over == "measurements" and auto:
            raise ValueError(f"search.over = 'measurements' searches no precision; choose that of target {auto[0]!r}")
        return self

    def to_yaml(self) -> str:
        """Return the recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
