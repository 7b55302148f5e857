import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

import ofa
from ofa.cli import main

# No deadline, as no test measures time; the same examples each time, so that a failure is there again.
settings.register_profile("ofa", deadline=None, derandomize=True, database=None)
settings.load_profile("ofa")
torch.set_num_threads(1)  # networks this small are slower on several


def smooth_images(n, channels, side, seed=0):
    """Normalized images with structure: random 4 by 4 pixels, enlarged."""
    noise = torch.randn(n, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, side, mode="bicubic", align_corners=False)


def awake(network, images):
    """The network, changed so that a test on it can fail: untrained ones give logits near 0 and equal weights.

    One pass sets BatchNorm statistics, every parameter gets noise, and logits a spread of about one.
    """
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise * (parameter.std() if parameter.dim() > 1 else 1.0))
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta, training = [norm.momentum for norm in norms], network.training
        for norm in norms:
            norm.momentum = 1.0
        network.train()(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        logits = network.eval()(images)
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.div_(logits.std(dim=0).mean())
        last.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0).mean())
        network.train(training)
    return network


@pytest.fixture(scope="session", name="smooth_images")
def _smooth_images():
    return smooth_images


@pytest.fixture(scope="session", name="awake")
def _awake():
    return awake


@pytest.fixture(scope="session")
def tiny():
    """The small family as small as it gets, for gray images, with dropout: a training step takes milliseconds."""
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [16], "width_mult": 0.5, "dropout": 0.2}
    return ofa.create_family("small_mobilenet_v3", **options)


@pytest.fixture(scope="session")
def tiny_recipe_text():
    """A recipe of the whole main job that takes some ten seconds."""
    return (Path(__file__).parent / "tiny.yaml").read_text()


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line: `command("fit", path)` gives exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ofa", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
