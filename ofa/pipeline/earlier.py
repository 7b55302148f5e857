"""The predictor of a new run, which may start from what earlier runs learned."""

from pathlib import Path

from ofa.core.errors import PredictorError
from ofa.pipeline.accuracy_store import denoised, read_samples
from ofa.pipeline.predictor import SUMMARIZED, features, read_predictor
from ofa.pipeline.run import Run, open_run
from ofa.predict import create
from ofa.predict.predictor import Predictor
from ofa.predict.summary import Summary


def new_predictor(run: Run) -> Predictor:
    """Create the predictor that a run's recipe asks for.

    Raises:
        PredictorError: a run to start from has no predictor.
        CheckpointError: one is broken, or reads costs that the recipe's does not.
        RunError: one has no readable recipe or samples.
    """
    config = run.recipe.predictor
    earlier = [_earlier(run, Path(folder).expanduser()) for folder in config.start_from]
    own = features(run.family, config.features)
    return create(config.name, run.family, features=own, start_from=earlier, seed=run.recipe.seed, **config.settings)


def _earlier(run: Run, folder: Path) -> Predictor:
    """Return the predictor of an earlier run, or, if that has other choices, a summary of its accuracies."""
    path = folder / "predictor.safetensors"
    if not path.exists():
        raise PredictorError(f"start_from: {folder} has no fitted predictor; run `ofa fit` there first")
    other = open_run(folder)
    if other.family.space.choices == run.family.space.choices:
        return read_predictor(path, run.family, run.recipe.predictor)
    samples = read_samples(other)
    summary = create("summary", other.family, features=features(other.family, SUMMARIZED), seed=run.recipe.seed)
    assert isinstance(summary, Summary)
    summary.fit(other.family.space.rows(samples), denoised(other, samples.values()))
    return summary.moved_to(run.family, features(run.family, SUMMARIZED))
