"""Every numeric key that says how to measure, with every number that could break it."""

import math

import numpy as np
import pytest
from torch import nn

from ofa.core.errors import RecipeError
from ofa.cost.energy import PowerConfig, energy_mj
from ofa.cost.latency.profile import TableConfig
from ofa.devices.device import Model
from ofa.devices.measure import measure
from ofa.pipeline.recipe_file import validate

NUMBERS = {"0": 0, "1": 1, "-1": -1, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "huge": 10**30, "true": True}
KEYS = [
    (section, key)
    for section in (TableConfig, PowerConfig)
    for key, field in section.model_fields.items()
    if field.annotation in (int, float)
]
SMALL = {"networks": 4, "checks": 2, "min_rounds": 2, "max_rounds": 3}


def outcome(section, values):
    """The section with these values, or the message of the error that refuses them."""
    try:
        return validate(section, values, "settings")
    except RecipeError as error:
        return str(error)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda value: getattr(value, "__name__", value))
def test_any_number_is_refused_in_one_line_or_works(section, key, number, pretend, host):
    result = outcome(section, ({"busy_w": 3.0} if section is PowerConfig else SMALL) | {key: NUMBERS[number]})
    if isinstance(result, str):
        assert result.startswith("settings: ")
        assert key in result
        assert "\n" not in result
    elif section is PowerConfig:
        assert 0 <= energy_mj(1.0, 1.0, result) < math.inf
    else:
        device = pretend(host(lambda module, shape: 0.5))
        models = {f"{i}": Model(nn.Identity, (i,)) for i in range(4)}
        timings = measure(device, models, models["0"], np.random.default_rng(0), config=result)
        assert all(timing.median_ms == pytest.approx(0.5) for timing in timings.values())


def test_every_numeric_key_is_tried():
    measuring = {"precision_percent", "min_rounds", "max_rounds", "burst_ms", "weights_mib", "networks", "checks"}
    assert {key for _, key in KEYS} == measuring | {"busy_w", "idle_w", "macs_pj"}


@pytest.mark.parametrize("key", ["min_rounds", "max_rounds", "burst_ms", "networks", "checks"])
def test_what_would_never_end_is_refused(key):
    assert f"{key} = 1000000" in outcome(TableConfig, {key: 1_000_000})
