"""The stages `train`, `profile`, `sample` and `fit`; `search` is in `ofa.pipeline.search`, the others in `export`."""

from dataclasses import asdict

import numpy as np

from ofa.core import distributed
from ofa.core.files import write_json
from ofa.cost.counted import macs_m
from ofa.cost.latency.profile import profile
from ofa.pipeline.accuracy_store import AccuracyStore, columns, denoised, n_validation_images, read_samples
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.predict.mlp import AccuracyPredictor, evaluate
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


def _profile(run: Run, progress: Progress) -> None:
    """Measure the latency table of the recipe's device."""
    table = profile(
        run.family,
        run.device,
        run.rng("profile"),
        config=run.recipe.profile,
        samples_path=run.path("latency_samples.json"),
        on_progress=lambda done, total: progress(done, total, "latencies"),
    )
    table.save(run.path("latency_table.json"))


def _sample(run: Run, progress: Progress) -> None:
    """Measure validation accuracies of random subnets, for the accuracy predictor."""
    space, n_archs = run.family.space, run.recipe.sample.archs
    ends = space.rows([space.smallest, space.largest])
    rows = space.unique(np.concatenate([ends, space.sample(2 * n_archs, run.rng("sample"))]))[:n_archs]
    store = AccuracyStore(run, SAMPLE, "samples.json")
    store.measure([space.decode(row) for row in rows], lambda done, message: progress(done, len(rows), message))


def _fit(run: Run, progress: Progress) -> None:
    """Fit the accuracy predictor to the sampled subnets, and evaluate it on held-out ones."""
    samples, space, config, seed = read_samples(run), run.family.space, run.recipe.predictor, run.recipe.seed
    rows, n_images = space.rows(samples), n_validation_images(run)
    top1_percent, loss = columns(samples.values())
    metrics = evaluate(space, rows, top1_percent, loss=loss, n_images=n_images, config=config, seed=seed)
    predictor = AccuracyPredictor.fit(space, rows, denoised(run, samples.values()), config=config, seed=seed)
    predictor.save(run.path("predictor.safetensors"))
    write_json(run.path("predictor.json"), asdict(metrics))
    progress(1, 1, f"Kendall tau {metrics.kendall_tau:.2f}")


TRAIN = Stage("train", (), ("family", "data", "train"), _train, expensive=True)
PROFILE = Stage("profile", (), ("family", "data", "profile"), _profile)
SAMPLE = Stage("sample", ("train",), ("sample",), _sample)
FIT = Stage("fit", ("sample",), ("predictor",), _fit)
