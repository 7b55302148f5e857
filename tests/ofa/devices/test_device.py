import math

import numpy as np
import pytest
import torch
from torch import nn

from ofa.core.errors import DeviceError
from ofa.devices.device import Model, Timing


@pytest.mark.parametrize(
    "values",
    [(-1.0, 0.1, 3), (math.nan, 0.1, 3), (math.inf, 0.1, 3), (1.0, -0.1, 3), (1.0, math.nan, 3), (1.0, 0.1, 0)],
)
def test_a_timing_that_cannot_be_is_refused(values):
    with pytest.raises(DeviceError, match="is not a timing; measure again"):
        Timing(*values)


def test_the_relative_error_is_the_spread_of_medians():
    rng = np.random.default_rng(0)
    bursts = 5 + 0.1 * rng.standard_normal((2000, 201))
    low, medians, high = np.percentile(bursts, (25, 50, 75), axis=1)
    errors = [Timing(m, s, 201).relative_error() for m, s in zip(medians, high - low, strict=True)]
    assert np.mean(errors) == pytest.approx(medians.std() / 5, rel=0.05)


def test_the_error_of_the_fastest_bursts_falls_with_their_number_and_is_unknown_for_one():
    errors = [Timing(2.0, 0.1, n).relative_error(fastest=True) for n in (2, 5, 17)]
    assert errors == pytest.approx([1.37 * 0.05 * math.sqrt(n) / (n - 1) for n in (2, 5, 17)])
    assert Timing(2.0, 0.1, 1).relative_error(fastest=True) == math.inf


def test_a_model_is_built_in_eval_mode_with_the_same_weights_and_leaves_the_generator():
    model = Model(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout()), (3,))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = model.module()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(first[0].weight, model.module()[0].weight)
    assert not first.training


def test_the_weights_of_a_model_are_counted_in_mib_without_allocating_them():
    assert Model(lambda: nn.Linear(2**20, 2**20, bias=False), (2**20,)).weights_mib == 4 * 2**20
    assert Model.of(nn.Linear(512, 256, bias=False).half(), (512,)).weights_mib == 0.25
