"""Tests of how gradients of archs are compared."""

import numpy as np
import pytest
import torch

import ofa
from benchmarks.inherited.gradients import gradient_cosines
from ofa.train.config import TrainConfig
from ofa.train.step import TrainingStep


@pytest.fixture
def step():
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [16], "width_mult": 0.5}
    family = ofa.create_family("small_mobilenet_v3", **options)
    settings = TrainConfig(phases=[{"strategy": "full", "epochs": 1}], teacher="none", channels_last=False)
    return TrainingStep(ofa.Supernet(family, seed=0), settings, 10)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 16, 16, generator=generator), torch.randint(10, (8,), generator=generator)


def test_cosines_are_those_of_each_pair_of_batches(step):
    space = step.supernet.family.space
    archs, batches = [space.largest, space.smallest], [batch(0), batch(1), batch(2)]
    found = gradient_cosines(step, archs, batches)
    directions = np.empty((3, 2), dtype=object)
    for b, (images, labels) in enumerate(batches):
        for a, arch in enumerate(archs):
            step.supernet.zero_grad()
            step.accumulate_gradients([arch], images, labels)
            gradient = torch.cat([p.grad.flatten() for p in step.supernet.parameters()]).double()
            directions[b, a] = gradient / gradient.norm()
    pairs = [(b, c) for b in range(3) for c in range(3) if b != c]
    for i in range(2):
        for j in range(2):
            same = np.mean([float(directions[b, i] @ directions[b, j]) for b in range(3)])
            other = np.mean([float(directions[b, i] @ directions[c, j]) for b, c in pairs])
            assert found["same"][i][j] == pytest.approx(same, abs=1e-5)
            assert found["other"][i][j] == pytest.approx(other, abs=1e-5)
    assert np.diag(found["same"]) == pytest.approx(1.0, abs=1e-5)
