"""The accuracy predictor of a run: section `predictor` of a recipe, and what its predictors read."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.core.errors import PredictorError
from ofa.cost.counted import blocks, macs_m, params_m, resolution
from ofa.cost.zero_cost import synflow
from ofa.predict.encoding import Feature
from ofa.predict.predictor import Predictor, check_settings, load
from ofa.supernet.family import Family

FEATURES: Mapping[str, Callable[[Family], Feature]] = {
    "macs_m": macs_m,
    "params_m": params_m,
    "blocks": blocks,
    "resolution": resolution,
    "synflow": synflow,
}
"""What predictors can read of archs beside their choices, by the names that recipes use."""
SUMMARIZED = ("macs_m", "params_m", "blocks", "resolution")
"""The features by which the accuracies of one family tell of those of another."""
_MOVED = ("members", "hidden", "alpha")


class PredictorConfig(Config):
    """Which accuracy predictor is fitted."""

    name: str = "auto"
    """`auto`, the best of several or a mean of them by archs left out, or one of them: `gp`, `ridge`, `mlp`, `trees`,
    `gcn`, `transformer`, or `summary`, which reads features alone."""
    features: list[Literal["macs_m", "params_m", "blocks", "resolution", "synflow"]] = Field(default_factory=list)
    """Costs and scores of untrained networks whose logarithms it reads, too; taking MACs, parameters or synflow of all
    blocks takes seconds to minutes for large families."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of that predictor, such as `{members: 10}`; see its file in `ofa/predict/`."""
    start_from: list[str] = Field(default_factory=list)
    """Directories of earlier runs, on other data or of other families. The predictor learns by how much accuracies
    differ from what theirs say, which takes fewer archs. Of a run with the same choices it takes the predictor, of
    others what resolution, depth, MACs and parameters tell there."""

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


def read_predictor(path: Path, family: Family, config: PredictorConfig) -> Predictor:
    """Read a predictor of a run; CheckpointError if the file is missing, broken or of another family."""
    names = {*config.features, *(SUMMARIZED if config.start_from else ())}  # of which it picks what it reads
    return load(path, family, features=features(family, names))


def features(family: Family, names: Iterable[str]) -> Mapping[str, Feature]:
    """Return features of a family by the names that recipes use."""
    return {name: FEATURES[name](family) for name in names}
