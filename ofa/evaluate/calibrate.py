"""BatchNorm calibration.

The shared running statistics fit no subnet in particular, so every subnet that is used on its own has its statistics
re-estimated on a few training images first (arXiv 1903.05134; BigNAS, 2003.11142, 3.2).
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ofa.data.loaders import Batches


def calibrate(network: nn.Module, batches: Batches) -> None:
    """Replace the network's BatchNorm statistics by their plain average over training batches, in place.

    Batches are training images `[batch, channels, h, w]` with labels, which are not used. The network is left in eval
    mode. Give it an extracted network: a subnet shares its statistics with all others.
    """
    calibrate_all([network], batches)


@torch.no_grad()
def calibrate_all(networks: Sequence[nn.Module], batches: Batches) -> None:
    """Calibrate networks in one pass over the batches; see `calibrate`."""
    of_networks = [
        [module for module in network.eval().modules() if isinstance(module, _BatchNorm)] for network in networks
    ]
    norms = list(chain(*of_networks))
    momenta = [norm.momentum for norm in norms]
    devices = [next(network.parameters()).device for network in networks]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for images, _ in batches if norms else ():
            for network, its_norms, device in zip(networks, of_networks, devices, strict=True):
                if its_norms:
                    network(images.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
