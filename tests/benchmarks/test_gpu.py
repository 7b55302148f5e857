import pytest
import torch

import ofa
from benchmarks import gpu


@pytest.fixture(scope="module")
def tiny_color():
    return ofa.create_family("small_mobilenet_v3", num_classes=10, resolutions=[16], width_mult=0.5)


@pytest.mark.parametrize("read_every", [1, 3])
def test_a_step_takes_some_time(tiny_color, read_every):
    settings = {"batch_size": 8, "calibration_images": 8}
    seconds = gpu.step_seconds(tiny_color, gpu.Noise(64, 16, 10), settings, read_every, warm_up=2)
    assert 0 < seconds < 60


def test_times_are_relative_to_the_first_training():
    shown = gpu.speed_table({"float32": [0.2, 0.2, 0.2], "bfloat16": [0.1, 0.1, 0.1]})
    assert "| bfloat16 | 100.0 (100.0 to 100.0) | 1280 | 0.50 (0.50 to 0.50) |" in shown


def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no NVIDIA GPU that PyTorch can use"):
        gpu.main()
