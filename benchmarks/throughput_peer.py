"""A worker of `benchmarks.throughput`: does training steps when asked to, here those of the PyPI package `ofa`.

That package (once-for-all, MIT Han lab) bears the name of this project's, so this file is run by a Python of its own
and imports nothing of this project. What both workers share is here: what a step is, how it is timed, and how a worker
talks: a line of JSON in, a line of JSON out. The first line holds the settings, each later one a request.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SGD: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 3e-5}


@dataclass
class Trainer:
    """A network that owns parameters, and their optimizer."""

    owner: nn.Module
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.owner.parameters(), **SGD)


Update = tuple[Trainer, Callable[[], Iterable[nn.Module]]]
"""One optimizer step: networks that share the trainer's parameters run in turn, and their gradients add up."""


@dataclass(frozen=True)
class Contender:
    """A way to train: for each sandwich, the updates that its step makes one after the other."""

    memory_format: torch.memory_format
    sandwiches: list[list[Update]]

    @property
    def parameters(self) -> int:
        """The number of parameters of all that a step updates."""
        return sum(p.numel() for trainer, _ in self.sandwiches[0] for p in trainer.owner.parameters())


def serve(build: Callable[[dict[str, Any]], dict[str, Contender]]) -> None:
    """Answers requests until there are no more.

    Args:
        build: makes the contenders from the settings: `sandwiches` (official descriptions of archs), `batch`, `pixels`,
            `threads`, and `weights`, the path of a checkpoint that once-for-all's worker writes and the other reads.
    """
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a package prints must not become an answer
        settings = json.loads(sys.stdin.readline())
        torch.set_num_threads(settings["threads"])
        torch.manual_seed(0)
        images = torch.randn(settings["batch"], 3, settings["pixels"], settings["pixels"])
        labels = torch.randint(0, 1000, (settings["batch"],))
        contenders = build(settings)
        answer: dict[str, Any] = {name: contender.parameters for name, contender in contenders.items()}
        print(json.dumps(answer), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            contender = contenders[request["contender"]]
            updates = contender.sandwiches[request["sandwich"]]
            ordered = images.contiguous(memory_format=contender.memory_format)
            answer = {"step": step, "logits": logits}[request["do"]](updates, ordered, labels)
            print(json.dumps(answer), file=answers, flush=True)


def step(updates: list[Update], images: Tensor, labels: Tensor) -> dict[str, Any]:
    """A training step: its seconds, how many of them went into zeroing gradients and SGD, and each network's loss."""
    losses, updating = [], 0.0
    start = time.perf_counter()
    for trainer, networks in updates:
        began = time.perf_counter()
        trainer.owner.zero_grad()
        updating += time.perf_counter() - began
        for network in networks():
            loss = functional.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            losses.append(loss.detach())
        began = time.perf_counter()
        trainer.optimizer.step()
        updating += time.perf_counter() - began
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "updating_seconds": updating, "losses": [float(loss) for loss in losses]}


@torch.no_grad()
def logits(updates: list[Update], images: Tensor, labels: Tensor) -> dict[str, Any]:  # noqa: ARG001
    """Each network's logits in training mode (BatchNorm by the batch), `[networks, batch, classes]`."""
    return {"logits": [network(images).tolist() for _, networks in updates for network in networks()]}


def once_for_all(settings: dict[str, Any]) -> dict[str, Contender]:
    """The package's own network, as published and with channels last; writes its weights."""
    operations = importlib.import_module("ofa.imagenet_classification.elastic_nn.modules.dynamic_op")
    networks = importlib.import_module("ofa.imagenet_classification.elastic_nn.networks")
    operations.DynamicSeparableConv2d.KERNEL_TRANSFORM_MODE = 1  # as its training script does
    network = networks.OFAMobileNetV3(
        dropout_rate=0, width_mult=1.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    with torch.no_grad():
        for parameter in network.parameters():  # so that no transform is the identity and no BatchNorm does nothing
            parameter += 0.05 * torch.randn_like(parameter)
    torch.save(network.state_dict(), settings["weights"])

    def contender(memory_format: torch.memory_format) -> Contender:
        trainer = Trainer(copy.deepcopy(network).to(memory_format=memory_format))

        def update(archs: list[dict[str, Any]]) -> Update:
            def active() -> Iterator[nn.Module]:
                for arch in archs:
                    trainer.owner.set_active_subnet(**arch)  # type: ignore[operator]  # nn.Module's attributes
                    yield trainer.owner

            return trainer, active

        return Contender(memory_format, [[update(archs)] for archs in settings["sandwiches"]])

    return {"contiguous": contender(torch.contiguous_format), "channels last": contender(torch.channels_last)}


if __name__ == "__main__":
    serve(once_for_all)
