"""Training on a GPU against training on the CPU. Skipped where there is no GPU; `python -m benchmarks.gpu` runs it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ofa
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.loaders import train_batches
from ofa.evaluate.subnets import evaluate_subnets
from ofa.train.config import TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="requires an NVIDIA GPU")

DIGITS = DataConfig(name="digits")


@pytest.fixture(scope="module")
def data():
    digits = load_data(DIGITS)
    return replace(
        digits, train=digits.train.subset(np.arange(320)), validation=digits.validation.subset(np.arange(100))
    )


def trained(family, data, folder, monkeypatch=None, **settings):
    """Trains on the GPU, or on the CPU if `monkeypatch` is given; returns the supernet and the history."""
    if monkeypatch is not None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    phases = [{"strategy": "sandwich", "epochs": 2, "random": 1}]
    config = TrainConfig(**{"phases": phases, "batch_size": 32, "calibration_images": 64, "teacher": "none"} | settings)
    supernet = ofa.Supernet(family, seed=0)
    history = ofa.train(supernet, data, config, folder=folder, augment=DIGITS.augment, seed=1)
    return supernet, history


@pytest.fixture
def plain():
    """A family without dropout, whose draws differ between devices."""
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [16], "width_mult": 0.5}
    return ofa.create_family("small_mobilenet_v3", **options)


@pytest.mark.parametrize("on_device", [False, True])
def test_batches_are_those_of_the_cpu(data, on_device):
    options = {"resolution": lambda _: 16, "batch_size": 32, "seed": 0, "steps": range(5), "workers": 2}
    augment = DIGITS.augment.model_copy(update={"on_device": on_device})
    on_cpu = train_batches(data, augment, **options)
    on_gpu = train_batches(data, augment, device=torch.device("cuda"), **options)
    level = 1.01 / 255 / min(data.std) if on_device else 1e-5  # images are rounded after they are resized
    for (images, labels), (moved, same) in zip(on_cpu, on_gpu, strict=True):
        assert moved.is_cuda
        torch.testing.assert_close(moved.cpu(), images, atol=level, rtol=1e-5)
        assert torch.equal(same.cpu(), labels)


def test_a_gpu_learns_what_the_cpu_does(plain, data, tmp_path, monkeypatch):
    """Sums in another order change later steps, so losses of the first epoch agree, and accuracies at the end do."""
    supernet, history = trained(plain, data, tmp_path / "gpu")
    assert next(supernet.parameters()).is_cuda
    _, expected = trained(plain, data, tmp_path / "cpu", monkeypatch)
    for kind, loss in expected[0]["loss"].items():
        assert history[0]["loss"][kind] == pytest.approx(loss, rel=0.02)


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"precision": "bfloat16", "clip_grad_norm": 1.0}])
def test_bfloat16_learns(plain, data, tmp_path, settings):
    phases = [{"strategy": "sandwich", "epochs": 8, "random": 1}]
    _, history = trained(plain, data, tmp_path, phases=phases, **settings)
    assert history[-1]["loss"]["largest"] < 0.7 * history[0]["loss"]["largest"]


def test_a_killed_training_resumes(plain, data, tmp_path):
    _, whole = trained(plain, data, tmp_path / "whole")

    def kill(done, *_):
        if done == 10:
            raise KeyboardInterrupt

    config = {"phases": [{"strategy": "sandwich", "epochs": 2, "random": 1}], "batch_size": 32, "teacher": "none"}
    settings = TrainConfig(**config, calibration_images=64, checkpoint_seconds=0.0)
    options = {"folder": tmp_path / "killed", "augment": DIGITS.augment, "seed": 1, "on_progress": kill}
    with pytest.raises(KeyboardInterrupt):
        ofa.train(ofa.Supernet(plain, seed=0), data, settings, **options)
    _, resumed = trained(plain, data, tmp_path / "killed", checkpoint_seconds=0.0)
    assert resumed[1]["loss"]["largest"] == pytest.approx(whole[1]["loss"]["largest"], rel=0.02)


def test_subnets_score_the_same_on_both(plain, data, tmp_path, monkeypatch):
    supernet, _ = trained(plain, data, tmp_path)
    archs = [plain.space.largest, plain.space.smallest]
    options = {"calibration_images": 64}
    on_gpu = [metrics.loss for _, metrics in evaluate_subnets(supernet, archs, data, data.validation, **options)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = [metrics.loss for _, metrics in evaluate_subnets(supernet.cpu(), archs, data, data.validation, **options)]
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)
