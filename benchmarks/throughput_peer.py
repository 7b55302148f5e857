"""A worker of `benchmarks.throughput`: the training steps of once-for-all, the PyPI package `ofa` (MIT Han lab).

As that package shares this project's name, a Python of its own runs this file, which imports nothing of this project.
Both workers use what is defined here: the step, its timing, and the protocol, one line of JSON per request and answer.
"""

import contextlib
import copy
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

SGD: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 3e-5}


class Trainer:
    """A network that owns parameters, and their optimizer."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner, self.optimizer = owner, torch.optim.SGD(owner.parameters(), **SGD)


Update = tuple[Trainer, Callable[[], Iterable[nn.Module]]]
"""One optimizer step: networks that share the trainer's parameters run in turn, and their gradients add up."""


class Contender(NamedTuple):
    """A way to train: the layout of the images and, for each sandwich, the updates that make up its step."""

    memory_format: torch.memory_format
    sandwiches: list[list[Update]]


def serve(contenders: Callable[[dict[str, Any]], dict[str, Contender]]) -> None:
    """Answer the requests on standard input until it ends.

    The first line holds the settings: `sandwiches` of archs as once-for-all describes them, `batch`, `pixels`,
    `threads`, and `weights`, the checkpoint that once-for-all's worker writes and the other one reads. Its answer is
    the number of parameters of each contender. Every other line requests an `action` (`step` or `logits`) of a
    `contender` on a `sandwich`.
    """
    actions, answers = {"step": step, "logits": logits}, sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a package prints must not become an answer
        settings = json.loads(sys.stdin.readline())
        torch.set_num_threads(settings["threads"])
        torch.manual_seed(0)
        images = torch.randn(settings["batch"], 3, settings["pixels"], settings["pixels"])
        labels = torch.randint(0, 1000, (settings["batch"],))
        by_name = contenders(settings)
        numbers = {name: n_parameters(contender.sandwiches[0]) for name, contender in by_name.items()}
        print(json.dumps(numbers), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            contender = by_name[request["contender"]]
            formatted = images.contiguous(memory_format=contender.memory_format)
            answer = actions[request["action"]](contender.sandwiches[request["sandwich"]], formatted, labels)
            print(json.dumps(answer), file=answers, flush=True)


def n_parameters(updates: list[Update]) -> int:
    return sum(p.numel() for trainer, _ in updates for p in trainer.owner.parameters())


def step(updates: list[Update], images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Take a training step; return its seconds, the share of zeroing and SGD, and the loss of each network."""
    losses, update_seconds = [], 0.0
    start = time.perf_counter()
    for trainer, networks in updates:
        update_start = time.perf_counter()
        trainer.owner.zero_grad()
        update_seconds += time.perf_counter() - update_start
        for network in networks():
            loss = functional.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            losses.append(loss.detach())
        update_start = time.perf_counter()
        trainer.optimizer.step()
        update_seconds += time.perf_counter() - update_start
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "update_seconds": update_seconds, "losses": [float(loss) for loss in losses]}


@torch.no_grad()
def logits(updates: list[Update], images: Tensor, labels: Tensor) -> dict[str, Any]:  # noqa: ARG001
    """Return the logits of each network in training mode, `[networks, batch, classes]`."""
    return {"logits": [network(images).tolist() for _, networks in updates for network in networks()]}


def once_for_all(settings: dict[str, Any]) -> dict[str, Contender]:
    """Build the package's own network, as published and with channels last, and write its weights."""
    operations = importlib.import_module("ofa.imagenet_classification.elastic_nn.modules.dynamic_op")
    networks = importlib.import_module("ofa.imagenet_classification.elastic_nn.networks")
    operations.DynamicSeparableConv2d.KERNEL_TRANSFORM_MODE = 1  # as its training script does
    network = networks.OFAMobileNetV3(
        dropout_rate=0, width_mult=1.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    with torch.no_grad():
        for parameter in network.parameters():  # so that no transform is the identity and no BatchNorm a no-op
            parameter += 0.05 * torch.randn_like(parameter)
    torch.save(network.state_dict(), settings["weights"])

    def contender(memory_format: torch.memory_format) -> Contender:
        trainer = Trainer(copy.deepcopy(network).to(memory_format=memory_format))

        def update(archs: list[dict[str, Any]]) -> Update:
            def subnets() -> Iterator[nn.Module]:
                for arch in archs:
                    trainer.owner.set_active_subnet(**arch)  # type: ignore[operator]  # nn.Module's attributes
                    yield trainer.owner

            return trainer, subnets

        return Contender(memory_format, [[update(archs)] for archs in settings["sandwiches"]])

    return {"contiguous": contender(torch.contiguous_format), "channels last": contender(torch.channels_last)}


if __name__ == "__main__":
    serve(once_for_all)
