"""BatchNorm calibration.

The shared running statistics fit no subnet in particular, so every subnet that is used on its own has its statistics
re-estimated on a few training images first (arXiv 1903.05134; BigNAS, 2003.11142, 3.2).
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ofa.data.loaders import Batches


@torch.no_grad()
def calibrate(network: nn.Module, batches: Batches) -> None:
    """Replace the network's BatchNorm statistics by their plain average over training batches, in place.

    Batches are training images `[batch, channels, h, w]` with labels, which are not used. The network is left in eval
    mode. Give it an extracted network: a subnet shares its statistics with all others.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta, device = [norm.momentum for norm in norms], next(network.parameters()).device
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for images, _ in batches:
            network(images.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
