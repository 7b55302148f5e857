"""Stage `train`: the recipe's phases, then the weights as `supernet.safetensors`."""

from __future__ import annotations

from ofa.core import distributed
from ofa.cost.counted import macs_m
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.supernet.supernet import Supernet
from ofa.train.trainer import train


def _train(run: Run, progress: Progress) -> None:
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


TRAIN = Stage("train", (), ("family", "data", "train"), _train, expensive=True)
