"""A training by two processes against the same training by one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ofa
from ofa.core.errors import TrainError
from ofa.core.tensors import read_tensors, write_tensors
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.train.config import TrainConfig
from ofa.train.trainer import train
from supernets import autoformer

DIGITS = DataConfig(name="digits")
PHASES = [{"strategy": "full", "epochs": 1}, {"strategy": "sandwich", "epochs": 1, "random": 1}]


def a_family(name):
    """With LayerNorm, whose results do not depend on how a batch is shared; or with BatchNorm."""
    if name == "transformer":
        sizes = {"embed_dims": (64, 128), "depths": (1, 2), "heads": (1, 2)}
        return autoformer.tiny(num_classes=10, in_channels=1, resolutions=(16, 32), **sizes)
    return ofa.create_family("small_mobilenet_v3", num_classes=10, in_channels=1, resolutions=[16], width_mult=0.5)


def trained(folder, name, options, stop_at=None):
    """Trains on 4 batches of 32 digits an epoch; keeps the weights in the folder."""
    digits = load_data(DIGITS)
    data = replace(
        digits, train=digits.train.subset(np.arange(150)), validation=digits.validation.subset(np.arange(50))
    )
    defaults = {"phases": PHASES, "batch_size": 32, "calibration_images": 32, "checkpoint_seconds": 0.0, "lr": 0.05}
    supernet = ofa.Supernet(a_family(name), seed=0)

    def progress(done, *_):
        if done == stop_at:
            raise InterruptedError

    try:
        settings = TrainConfig(**defaults | options)
        train(supernet, data, settings, folder=Path(folder), augment=DIGITS.augment, seed=2, on_progress=progress)
    except InterruptedError:
        return "stopped"
    from ofa.core import distributed

    path = Path(folder) / f"weights-{distributed.rank()}.safetensors"
    write_tensors(path, supernet.network.state_dict())
    return str(path)


def weights(path):
    return read_tensors(Path(path))[0]


def trained_both(folder, options):
    """Trains the transformer, then the convolutions, in the same processes, which take seconds to start."""
    return [trained(Path(folder) / name, name, options) for name in ("transformer", "convolutions")]


@pytest.mark.parametrize("clip", [0.5, pytest.param(None, marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(together, tmp_path, clip):
    options = {"clip_grad_norm": clip}
    alone = weights(trained(tmp_path / "1" / "transformer", "transformer", options))
    paths = together(2, trained_both, str(tmp_path / "2"), options)
    (first, one), (second, other) = (map(weights, of_rank) for of_rank in paths)
    assert all(torch.equal(one[name], other[name]) for name in one)  # statistics of BatchNorm among them
    start = ofa.Supernet(a_family("transformer"), seed=0).network.state_dict()
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - tensor).abs().max() <= 1e-5 * max(1.0, float(tensor.abs().max())), name
    assert any((alone[name] - start[name]).abs().max() > 1e-3 for name in alone)
    logs = [(tmp_path / n / "transformer" / "train.jsonl").read_text().splitlines() for n in "12"]
    for one, two in zip(*logs, strict=True):
        assert json.loads(two)["loss"] == pytest.approx(json.loads(one)["loss"], rel=1e-4)


@pytest.mark.slow
def test_each_process_may_draw_archs_of_its_own(together, tmp_path):
    runs = {}
    for different in (False, True):
        options = {"different_archs": different, "phases": PHASES[1:]}
        first, second = map(weights, together(2, trained, str(tmp_path / str(different)), "transformer", options))
        assert all(torch.equal(first[name], second[name]) for name in first)
        runs[different] = first
    assert any(not torch.equal(runs[True][name], runs[False][name]) for name in runs[True])


@pytest.mark.slow
def test_resuming_with_another_number_of_processes(together, tmp_path):
    whole = weights(trained(tmp_path / "whole", "transformer", {}))
    assert together(2, trained, str(tmp_path / "run"), "transformer", {}, 3) == ["stopped", "stopped"]
    resumed = weights(trained(tmp_path / "run", "transformer", {}))
    for name, tensor in whole.items():
        assert (resumed[name] - tensor).abs().max() <= 1e-5 * max(1.0, float(tensor.abs().max())), name


def test_a_batch_that_cannot_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr("ofa.core.distributed.world_size", lambda: 3)
    with pytest.raises(TrainError, match=r"train\.batch_size = 32 cannot be shared by 3 processes; give a multiple"):
        trained(tmp_path, "transformer", {})
