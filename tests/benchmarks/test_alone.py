"""Tests of the plain loop."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

import ofa
from benchmarks.alone import train_alone
from ofa.data.config import AugmentConfig, DataConfig


def test_the_seed_decides_the_weights_whatever_was_drawn_before():
    data = ofa.load_data(DataConfig(name="digits"))
    data = replace(data, train=data.train.subset(np.arange(64)))
    family = ofa.create_family("small_mobilenet_v3", resolutions=[8], width_mult=0.5, in_channels=1)
    config = ofa.TrainConfig(phases=[{"strategy": "full", "epochs": 1}], batch_size=32, ema_decay=0.5)
    build, trained = partial(family.build, family.space.smallest), []
    for seed in (0, 0, 1):
        torch.rand(3)
        trained.append(train_alone(build, 8, data, AugmentConfig(), config, seed).state_dict())
    first, again, other = trained
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
