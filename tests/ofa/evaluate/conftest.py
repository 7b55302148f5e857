import pytest
import torch
from torch import nn


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(4 * 36, 5), nn.BatchNorm1d(5))
    module[1].running_mean.fill_(3.0)
    return module


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 2, 8, 8, generator=generator) + n, torch.randint(0, 5, (n,), generator=generator))
        for n in (6, 6, 3)
    ]
