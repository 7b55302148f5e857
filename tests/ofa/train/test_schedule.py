import math

import pytest
import torch

from ofa.train.config import TrainConfig
from ofa.train.schedule import Schedule


def rates(phases, per_epoch=10, order=None, **options):
    config = TrainConfig(phases=phases, lr=1.0, **options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=123.0)
    schedule = Schedule(optimizer, config, per_epoch)
    found = {}
    for step in order or range(per_epoch * sum(phase.epochs for phase in config.phases)):
        schedule.set(step)
        found[step] = optimizer.param_groups[0]["lr"]
    return found


def test_one_cosine_over_phases_that_give_no_rate():
    found = rates([{"strategy": "full", "epochs": 1}, {"strategy": "sandwich", "epochs": 3}], warmup_epochs=0.0)
    assert found == pytest.approx({step: (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)})


def test_a_phase_with_a_rate_begins_a_schedule():
    phases = [
        {"strategy": "full", "epochs": 2},
        {"strategy": "uniform", "epochs": 1, "lr": 0.2},
        {"strategy": "uniform", "epochs": 1},
        {"strategy": "uniform", "epochs": 3, "lr": 0.1, "warmup_epochs": 1.0},
    ]
    found = rates(phases, warmup_epochs=0.5, min_lr=0.01)
    warmup = {step: 0.01 + step * (1.0 - 0.01) / 5 for step in range(5)}
    assert {step: found[step] for step in range(5)} == pytest.approx(warmup)
    cosine = {step: 0.01 + (1.0 - 0.01) * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(5, 20)}
    assert {step: found[step] for step in range(5, 20)} == pytest.approx(cosine)
    cosine = {20 + i: 0.01 + (0.2 - 0.01) * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(20)}
    assert {step: found[step] for step in range(20, 40)} == pytest.approx(cosine)
    assert found[40] == pytest.approx(0.001)
    assert found[50] == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * 10 / 30)) / 2)


def test_a_rate_depends_on_the_step_alone():
    phases = [{"strategy": "full", "epochs": 2}, {"strategy": "uniform", "epochs": 2, "lr": 0.5}]
    backwards = rates(phases, order=range(39, -1, -1))
    assert backwards == rates(phases)
