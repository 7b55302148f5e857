"""Stage `finetune`: the levels of a target learn on, each alone, before they are exported; off by default."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import nn

from ofa.core.files import write_json
from ofa.core.tensors import load_state_dict, read_state_dict, write_tensors
from ofa.data.loaders import eval_batches
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.pipeline.level_files import extract
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.pipeline.target import Target
from ofa.space.arch import Value
from ofa.train.finetune import finetune


def _finetune(target: Target, progress: Progress) -> None:
    """Finetune each arch of the levels, and compare it with its inherited weights on the validation images."""
    run, config = target.run, target.recipe.finetune
    results = []
    entries = target.read_json("front.json")["levels"] if config is not None else []
    supernet = run.supernet() if entries else None
    for i, entry in enumerate(entries):
        assert config is not None
        assert supernet is not None
        arch, report = entry["arch"], partial(_report, progress, i, len(entries))
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
                on_progress=report,
            )
            calibrate(learned, run.calibration_batches(arch))
            write_tensors(path, learned.state_dict())
            shutil.rmtree(path.with_suffix(""))
        load_finetuned(target, network, arch)
        finetuned_percent = _validation_percent(run, network, arch)
        results.append({"arch": arch, "inherited_percent": inherited_percent, "finetuned_percent": finetuned_percent})
    write_json(target.path("finetune.json"), {"levels": results})


def weights_path(target: Target, arch: Mapping[str, Value]) -> Path:
    """Return the path of an arch's finetuned weights."""
    digest = hashlib.sha256(json.dumps(dict(arch), sort_keys=True).encode()).hexdigest()
    return target.path("finetuned") / f"{digest[:12]}.safetensors"


def load_finetuned(target: Target, network: nn.Module, arch: Mapping[str, Value]) -> None:
    """Load the finetuned weights of an arch into its extracted network."""
    path = weights_path(target, arch)
    load_state_dict(network, read_state_dict(path), path, "weights that the stage `finetune` made")


def _validation_percent(run: Run, network: nn.Module, arch: Mapping[str, Value]) -> float:
    batches = eval_batches(run.data, run.data.validation, int(arch["resolution"]), limit=run.recipe.sample.images)
    return evaluate(network, batches).top1_percent


def _report(progress: Progress, i: int, n: int, done: int, total: int, message: str) -> None:
    progress(i * total + done, n * total, f"level {i + 1}/{n}, {message}")


FINETUNE = Stage("finetune", ("search",), ("finetune",), _finetune, target_keys=(), partial=("finetuned",))
