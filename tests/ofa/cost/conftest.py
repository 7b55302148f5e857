from dataclasses import dataclass, field

import numpy as np
import pytest

from ofa.cost.counted import count_macs
from ofa.device import PlaceLost

OVERHEAD_MS = 0.05


@dataclass
class PretendPlace:
    """Runs take as long as follows from the model, the drift of the moment and noise; some places die."""

    milliseconds: object
    noise: float = 0.0
    speed: object = staticmethod(lambda moment: 1.0)
    lasts: float = float("inf")
    seed: int = 0
    moment: int = 0
    loaded: list = field(default_factory=list)
    visits: list = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def load(self, model):
        module = model.module()
        assert not module.training
        self.loaded.append(model)
        number, true = len(self.loaded) - 1, self.milliseconds(module, model.input_shape)

        def run(n):
            self.moment += 1
            if self.moment > self.lasts:
                raise PlaceLost("it died")
            self.visits.append(number)
            return list(true * self.speed(self.moment) * np.exp(self.noise * self.rng.standard_normal(n)))

        return run


@dataclass
class PretendDevice:
    places: list
    name: str = "pretend"
    description: dict = field(default_factory=lambda: {"device": "pretend", "threads": 1})


def by_macs(module, shape):
    """The overhead and a nanosecond for each multiply-accumulate: of a network, what its blocks take together."""
    return OVERHEAD_MS + count_macs(module, shape) * 1e-6


@pytest.fixture(scope="session")
def place():
    """Makes one: `place(milliseconds, noise=0.1)`."""
    return lambda milliseconds=by_macs, **options: PretendPlace(milliseconds, **options)


@pytest.fixture(scope="session")
def pretend(place):
    """Makes a device of some places; by default of one whose timings follow from the parameters."""
    return lambda *places: PretendDevice(list(places) or [place()])
