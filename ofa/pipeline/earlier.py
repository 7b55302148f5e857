"""The predictor of a new run, which may start from what earlier runs learned."""

from pathlib import Path

from ofa.core.errors import PredictorError
from ofa.pipeline.accuracy_store import Samples, denoised, read_samples
from ofa.pipeline.predictor import SUMMARIZED, features, read_predictor
from ofa.pipeline.run import Run, open_run
from ofa.predict import create
from ofa.predict.predictor import Predictor, as_encoding
from ofa.predict.summary import Summary, SummarySettings
from ofa.predict.warp import Floats
from ofa.space.arch import Rows
from ofa.supernet.family import Family


def new_predictor(run: Run) -> Predictor:
    """Create the predictor that a run's recipe asks for.

    Raises:
        PredictorError: a run to start from has no predictor, or there are no features and nothing else to read.
        CheckpointError: one is broken, or reads costs that the recipe's does not.
        RunError: one has no readable recipe or samples.
    """
    return _create(run, [_predictor_of(run, *one) for one in _read(run)])


def check_predictor(run: Run) -> None:
    """Read all that `new_predictor` reads and raise what it raises, without fitting anything."""
    _create(run, [])
    _read(run)


def moved_summary(family: Family, rows: Rows, top1_percent: Floats, to: Family, seed: int = 0) -> Predictor:
    """Fit a summary to accuracies in percent `[n]` of rows `[n, n_choices]` of one family and move it to another."""
    encoding = as_encoding(family, features(family, SUMMARIZED))
    summary = Summary(encoding, SummarySettings(), seed=seed).fit(rows, top1_percent)
    return summary.moved_to(to, features(to, SUMMARIZED))


def _create(run: Run, earlier: list[Predictor]) -> Predictor:
    config, own = run.recipe.predictor, features(run.family, run.recipe.predictor.features)
    return create(config.name, run.family, features=own, start_from=earlier, seed=run.recipe.seed, **config.settings)


def _read(run: Run) -> list[tuple[Run, Predictor | Samples]]:
    """Return the earlier runs, each with its predictor, or with its samples if it has other choices."""
    return [_read_one(run, Path(folder).expanduser()) for folder in run.recipe.predictor.start_from]


def _read_one(run: Run, folder: Path) -> tuple[Run, Predictor | Samples]:
    path = folder / "predictor.safetensors"
    if not path.exists():
        raise PredictorError(f"start_from: {folder} has no fitted predictor; run `ofa fit` there first")
    earlier = open_run(folder)
    if earlier.family.space.choices == run.family.space.choices:
        return earlier, read_predictor(path, run.family, run.recipe.predictor)
    return earlier, read_samples(earlier)


def _predictor_of(run: Run, earlier: Run, known: Predictor | Samples) -> Predictor:
    if isinstance(known, Predictor):
        return known
    rows, top1_percent = earlier.family.space.rows(known), denoised(earlier, known.values())
    return moved_summary(earlier.family, rows, top1_percent, run.family, run.recipe.seed)
