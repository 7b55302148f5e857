"""The stages `train`, `profile`, `sample` and `fit`; `search` is in `ofa.pipeline.search`, the others in `export`."""

from dataclasses import asdict
from functools import partial

import numpy as np

from ofa.core import distributed
from ofa.core.files import write_json
from ofa.cost.counted import macs_m
from ofa.cost.latency.profile import profile
from ofa.pipeline.accuracy_store import AccuracyStore, columns, n_validation_images, read_samples
from ofa.pipeline.earlier import check_predictor, new_predictor
from ofa.pipeline.level_files import accuracy_measure
from ofa.pipeline.measured import fit_predictor
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.pipeline.target import Target
from ofa.predict.denoise import noise_variance
from ofa.predict.metrics import judge
from ofa.supernet.supernet import Supernet
from ofa.train.trainer import train


def _train(run: Run, progress: Progress) -> None:
    """Train the recipe's phases, then write the weights."""
    recipe = run.recipe
    supernet = Supernet(run.family, seed=recipe.seed)
    train(
        supernet,
        run.data,
        recipe.train,
        folder=run.folder,
        augment=recipe.data.augment,
        workers=recipe.data.workers,
        seed=recipe.seed,
        macs_m=macs_m(run.family),
        on_progress=progress,
    )
    if distributed.rank() == 0:
        supernet.save(run.path("supernet.safetensors"))


def _profile(target: Target, progress: Progress) -> None:
    """Measure the latency table of a target's device in each precision, or take the one that was given."""
    run, precisions = target.run, target.precisions
    for i, precision in enumerate(precisions):
        if target.config.table is not None:
            target.given_table().save(target.table_path(precision))
            continue
        table = profile(
            run.family,
            target.device(precision),
            run.rng("profile"),
            config=run.recipe.profile,
            samples_path=target.path(f"latency_samples-{precision}.json"),
            on_progress=partial(_report, progress, precision, i, len(precisions)),
        )
        table.save(target.table_path(precision))


def _report(progress: Progress, precision: str, i: int, n: int, done: int, total: int) -> None:
    progress(i * total + done, n * total, f"latencies, {precision}")


def _sample(run: Run, progress: Progress) -> None:
    """Measure validation accuracies of random subnets, for the accuracy predictor."""
    space, n_archs = run.family.space, run.recipe.sample.archs
    ends = space.rows([space.smallest, space.largest])
    rows = space.unique(np.concatenate([ends, space.sample(2 * n_archs, run.rng("sample"))]))[:n_archs]
    store = AccuracyStore(run, "samples.json", accuracy_measure(run))
    archs = [space.decode(row) for row in rows]
    store.measure("float32", archs, lambda done, message: progress(done, len(rows), message))


def _fit(run: Run, progress: Progress) -> None:
    """Fit the accuracy predictor to the sampled subnets, and judge it by subnets left out."""
    samples = read_samples(run)
    predictor = fit_predictor(run, new_predictor(run), samples)
    predictor.save(run.path("predictor.safetensors"))
    top1_percent, _ = columns(samples.values())
    prediction = predictor.cross_validated()
    noise_percent = np.sqrt(noise_variance(prediction.mean, n_validation_images(run)))
    metrics = judge(prediction, top1_percent, noise_percent)
    write_json(run.path("predictor.json"), asdict(metrics))
    progress(1, 1, f"Kendall tau {metrics.kendall_tau:.2f}")


TRAIN = Stage("train", (), ("family", "data", "train"), _train, expensive=True)
PROFILE = Stage(
    "profile",
    (),
    ("family", "data", "profile"),
    _profile,
    target_keys=("device", "options", "batch", "precision", "table"),
    partial=("latency_samples-*.json", "latency_table-*.json"),
)
SAMPLE = Stage("sample", ("train",), ("sample",), _sample)
FIT = Stage("fit", ("sample",), ("predictor",), _fit, check=check_predictor)
