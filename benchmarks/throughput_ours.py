"""A worker of `benchmarks.throughput`: this project's training steps."""

from typing import Any

import torch

from benchmarks.throughput_peer import Contender, Trainer, Update, serve
from ofa import Arch, create_family, import_checkpoint
from supernets.checkpoints import once_for_all

FAMILY = "ofa_mobilenet_v3"


def contenders(settings: dict[str, Any]) -> dict[str, Contender]:
    """Build the supernet with the peer's weights, and static networks extracted from it; all channels last."""
    family = create_family(FAMILY, resolutions=(settings["pixels"],), dropout=0.0)
    supernet, compiled_supernet = (
        import_checkpoint("once-for-all", settings["weights"], family).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    shared_trainer, compiled_trainer = Trainer(supernet), Trainer(compiled_supernet)
    compiled_networks: dict[Arch, Any] = {
        arch: torch.compile(compiled_supernet.train().subnet(arch))
        for arch in (family.space.largest, family.space.smallest)
    }

    def shared(archs: list[Arch]) -> Update:
        return shared_trainer, lambda: map(supernet.subnet, archs)

    def compiled(archs: list[Arch]) -> Update:
        return compiled_trainer, lambda: (
            compiled_networks[arch] if arch in compiled_networks else compiled_supernet.subnet(arch) for arch in archs
        )

    def static(arch: Arch) -> Update:
        network = supernet.extract(arch).to(memory_format=torch.channels_last)
        return Trainer(network), lambda: [network]

    sandwiches = [[once_for_all.arch(family, official) for official in archs] for archs in settings["sandwiches"]]
    return {
        "shared": Contender(torch.channels_last, [[shared(archs)] for archs in sandwiches]),
        "compiled": Contender(torch.channels_last, [[compiled(archs)] for archs in sandwiches]),
        "static": Contender(torch.channels_last, [[static(arch) for arch in archs] for archs in sandwiches]),
    }


if __name__ == "__main__":
    serve(contenders)
