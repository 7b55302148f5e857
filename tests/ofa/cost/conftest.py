import numpy as np
import pytest

import ofa
from ofa import Choice, Family, SearchSpace, Slot
from ofa.cost.latency.profile import TableConfig, profile
from supernets.blocks.convolutions import ConvNorm, Head

QUICK = TableConfig(networks=12, checks=4, min_rounds=2, max_rounds=2)


@pytest.fixture(scope="session")
def quick():
    """Profile a family on a device with few networks and rounds; keywords are those of `profile`."""

    def call(family, device, seed=0, **options):
        return profile(family, device, np.random.default_rng(seed), **{"config": QUICK, **options})

    return call


@pytest.fixture(scope="session")
def little():
    """A family of 36 archs and a few blocks, which is profiled in a second."""
    choices = [Choice("resolution", (8, 12)), Choice("depth", (1, 2, 3)), Choice("width", (4, 8, 16))]
    choices.append(Choice("kernel", (3, 5)))

    def layer(number):
        return lambda depth, width, kernel: ConvNorm(width, width, kernel) if depth > number else None

    slots = (
        Slot("stem", lambda width: ConvNorm(3, width), ("width",)),
        *(Slot(f"layers.{number}", layer(number), ("depth", "width", "kernel")) for number in range(3)),
        Slot("head", lambda width: Head(width, 8, 8, 4), ("width",)),
    )
    return Family("little", SearchSpace(choices), slots)


@pytest.fixture(scope="session")
def small():
    return ofa.create_family("small_mobilenet_v3", in_channels=1, resolutions=[12, 16], width_mult=0.5)


@pytest.fixture(scope="session")
def table(small, pretend, quick):
    """A table of the small family on a device where a network takes as long as its blocks together."""
    return quick(small, pretend())


@pytest.fixture
def path(table, tmp_path):
    table.save(tmp_path / "table.json")
    return tmp_path / "table.json"
