"""Stage `finetune`: the levels of a target learn on, each alone, before they are exported; off by default."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ofa.core.files import write_json
from ofa.core.tensors import load_state_dict, read_state_dict, write_tensors
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.pipeline.level_files import extract
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage, all_stages
from ofa.pipeline.target import Target
from ofa.space.arch import Value
from ofa.train.finetune import FinetuneConfig, finetune


def _finetune(target: Target, progress: Progress) -> None:
    """Finetune the arch of each level, if the recipe says so, and write the accuracies before and after."""
    config = target.recipe.finetune
    levels = [] if config is None else list(_finetuned(target, config, progress))
    write_json(target.path("finetune.json"), {"levels": levels})


def _finetuned(target: Target, config: FinetuneConfig, progress: Progress) -> Iterator[dict[str, Any]]:
    """Finetune each arch, unless its weights are there already; yields its accuracies on the validation images."""
    run, supernet, entries = target.run, target.run.supernet(), target.read_json("front.json")["levels"]
    for i, entry in enumerate(entries):
        arch = entry["arch"]
        network, path = extract(run, supernet, arch), weights_path(target, arch)
        inherited_percent = _validation_percent(run, network, arch)
        if not path.exists():
            learned = finetune(
                network,
                run.family,
                int(arch["resolution"]),
                run.data,
                config,
                teacher=run.path("supernet.safetensors"),
                like=target.recipe.train,
                folder=path.with_suffix(""),
                augment=target.recipe.data.augment,
                workers=target.recipe.data.workers,
                seed=target.recipe.seed,
                on_progress=partial(_report, progress, i, len(entries)),
            )
            calibrate(learned, run.calibration_batches(arch))
            write_tensors(path, learned.state_dict())
            shutil.rmtree(path.with_suffix(""))
        load_finetuned(target, network, arch)
        finetuned_percent = _validation_percent(run, network, arch)
        yield {"arch": arch, "inherited_percent": inherited_percent, "finetuned_percent": finetuned_percent}


def weights_path(target: Target, arch: Mapping[str, Value]) -> Path:
    """Return the path of an arch's finetuned weights, which names all that they depend on."""
    config, run = target.recipe.finetune, target.run
    settings = {
        "arch": dict(arch),
        "finetune": None if config is None else config.model_dump(mode="json"),
        "supernet and calibration": run.fingerprint(all_stages()["sample"]),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return target.path("finetuned") / f"{digest[:12]}.safetensors"


def load_finetuned(target: Target, network: nn.Module, arch: Mapping[str, Value]) -> None:
    """Load the finetuned weights of an arch into its extracted network."""
    path = weights_path(target, arch)
    load_state_dict(network, read_state_dict(path), path, "weights that the stage `finetune` made")


def _validation_percent(run: Run, network: nn.Module, arch: Mapping[str, Value]) -> float:
    return evaluate(network, run.validation_batches(arch)).top1_percent


def _report(progress: Progress, i: int, n: int, done: int, total: int, message: str) -> None:
    progress(i * total + done, n * total, f"level {i + 1}/{n}, {message}")


FINETUNE = Stage("finetune", ("search",), ("finetune",), _finetune, target_keys=(), partial=("finetuned",))
