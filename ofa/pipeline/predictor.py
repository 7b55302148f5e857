"""The accuracy predictor of a run: section `predictor` of a recipe, and what its predictors read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.core.errors import PredictorError
from ofa.cost.counted import macs_m, params_m
from ofa.cost.zero_cost import synflow
from ofa.predict.encoding import Feature
from ofa.predict.predictor import Predictor, check_settings, create, load
from ofa.supernet.family import Family

FEATURES: Mapping[str, Callable[[Family], Feature]] = {"macs_m": macs_m, "params_m": params_m, "synflow": synflow}
"""What predictors can read of archs beside their choices, by the names that recipes use."""
_MOVED = ("members", "hidden", "alpha")


class PredictorConfig(Config):
    """Which accuracy predictor is fitted."""

    name: str = "auto"
    """`auto`, the best of several or a mean of them by archs left out, or one of them: `gp`, `ridge`, `mlp`, `trees`,
    `gcn`, `transformer`."""
    features: list[Literal["macs_m", "params_m", "synflow"]] = Field(default_factory=list)
    """Costs and scores of untrained networks whose logarithms it reads, too; taking them of all blocks takes seconds to
    minutes for large families."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of that predictor, such as `{members: 10}`; see its file in `ofa/predict/`."""
    start_from: list[str] = Field(default_factory=list)
    """Directories of earlier runs of the same family and choices, on other data. The predictor learns by how much
    accuracies differ from what theirs say, which takes fewer archs."""

    @model_validator(mode="before")
    @classmethod
    def _check_layout(cls, content: Any) -> Any:
        keys = [key for key in _MOVED if isinstance(content, dict) and key in content]
        if keys:
            raise ValueError(f"{', '.join(keys)} moved; write {{name: mlp, settings: {{{keys[0]}: ...}}}}")
        if isinstance(content, dict) and "test_percent" in content:
            raise ValueError("test_percent has no use any more, as every arch is left out once; remove it")
        return content

    @model_validator(mode="after")
    def _check_settings(self) -> "PredictorConfig":
        try:
            check_settings(self.name, self.settings)
        except PredictorError as error:
            raise ValueError(str(error)) from error
        return self


def new_predictor(family: Family, config: PredictorConfig, seed: int) -> Predictor:
    """Create the predictor that a recipe asks for.

    Raises:
        PredictorError: a run to start from has no predictor.
        CheckpointError: one is broken, of another search space, or reads costs that the recipe's does not.
    """
    paths = [Path(run).expanduser() / "predictor.safetensors" for run in config.start_from]
    for path in paths:
        if not path.exists():
            raise PredictorError(f"start_from: {path.parent} has no fitted predictor; run `ofa fit` there first")
    earlier = [read_predictor(path, family, config) for path in paths]
    return create(
        config.name, family, features=_features(family, config), start_from=earlier, seed=seed, **config.settings
    )


def read_predictor(path: Path, family: Family, config: PredictorConfig) -> Predictor:
    """Read a predictor of a run; CheckpointError if the file is missing, broken or of another family."""
    return load(path, family, features=_features(family, config))


def _features(family: Family, config: PredictorConfig) -> Mapping[str, Feature]:
    return {name: FEATURES[name](family) for name in config.features}
