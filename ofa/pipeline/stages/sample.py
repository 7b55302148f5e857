"""Stage `sample`: validation accuracies of random subnets, for the accuracy predictor."""

from __future__ import annotations

import numpy as np

from ofa.pipeline.accuracy_store import AccuracyStore
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage


def _sample(run: Run, progress: Progress) -> None:
    space, n_archs = run.family.space, run.recipe.sample.archs
    ends = space.rows([space.smallest, space.largest])
    rows = space.unique(np.concatenate([ends, space.sample(2 * n_archs, run.rng("sample"))]))[:n_archs]
    store = AccuracyStore(run, SAMPLE, "samples.json")
    store.measure([space.decode(row) for row in rows], lambda done, message: progress(done, len(rows), message))


SAMPLE = Stage("sample", ("train",), ("sample",), _sample)
