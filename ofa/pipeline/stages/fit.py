"""Stage `fit`: the accuracy predictor, fitted to the sampled subnets and evaluated on held-out ones."""

from __future__ import annotations

from dataclasses import asdict

from ofa.core.files import write_json
from ofa.pipeline.accuracy_store import columns, n_validation_images, read_samples
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.predict.denoise import denoised_percent
from ofa.predict.metrics import evaluate
from ofa.predict.mlp import AccuracyPredictor


def _fit(run: Run, progress: Progress) -> None:
    samples, space, config = read_samples(run), run.family.space, run.recipe.predictor
    top1_percent, loss = columns(samples.values())
    rows, n_images = space.rows(samples), n_validation_images(run)
    seed = run.recipe.seed
    metrics = evaluate(space, rows, top1_percent, loss=loss, n_images=n_images, config=config, seed=seed)
    targets = denoised_percent(top1_percent, loss, n_images)
    predictor = AccuracyPredictor.fit(space, rows, targets, config=config, seed=seed)
    predictor.save(run.path("predictor.safetensors"))
    write_json(run.path("predictor.json"), asdict(metrics))
    progress(1, 1, f"Kendall tau {metrics.kendall_tau:.2f}")


FIT = Stage("fit", ("sample",), ("predictor",), _fit)
