"""A family of plain convolutional networks. `python docs/examples/plain_cnn.py` trains it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from ofa import Choice, Family, SearchSpace, Slot, Supernet
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.loaders import eval_batches
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.train.config import TrainConfig
from ofa.train.trainer import train
from supernets.blocks.convolutions import ConvNorm


@dataclass(frozen=True)
class Head:  # a block describes a piece of the network completely and builds it as an ordinary module
    channels: int
    num_classes: int

    def build(self):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.channels, self.num_classes))

    def input_shape(self, size):  # of one sample, for a feature map of size by size pixels
        return (self.channels, size, size)


def body(b, depth, width, kernel):  # from values of choices to a block, or to None where the layer is skipped
    return ConvNorm(width, width, kernel) if b < depth else None


def family(num_classes=10, in_channels=1, resolutions=(8, 12, 16)):
    resolution, width = Choice("resolution", tuple(resolutions)), Choice("stage0.width", (16, 24, 32))
    depth = Choice("stage0.depth", (1, 2, 3))
    kernels = [Choice(f"stage0.block{b}.kernel", (3, 5), depth.needs_for(b)) for b in range(3)]  # active if b < depth
    slots = (  # path, function to the block, choices that it reads, ratio of the image's size to its input's
        Slot("stem", partial(ConvNorm, in_channels, stride=2), (width.name,)),
        *(Slot(f"stages.0.{b}", partial(body, b), (depth.name, width.name, kernels[b].name), 2) for b in range(3)),
        Slot("head", partial(Head, num_classes=num_classes), (width.name,), 2),
    )
    space = SearchSpace([resolution, width, depth, *kernels])
    return Family("plain_cnn", space, slots, in_channels, classifiers=("head.2",))


if __name__ == "__main__":
    data, supernet = load_data(DataConfig(name="digits")), Supernet(family())
    phases = [{"strategy": "full", "epochs": 2}, {"strategy": "sandwich", "epochs": 8, "random": 1}]
    with TemporaryDirectory() as folder:
        train(supernet, data, TrainConfig(phases=phases, batch_size=32), folder=Path(folder))
    for arch in (supernet.family.space.largest, supernet.family.space.smallest):
        network, resolution = supernet.extract(arch), arch["resolution"]
        calibrate(network, eval_batches(data, data.train, resolution, limit=512))
        print(f"{evaluate(network, eval_batches(data, data.test, resolution)).top1_percent:.1f}% {dict(arch)}")
