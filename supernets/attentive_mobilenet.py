"""The space of AttentiveNAS and AlphaNet: width, depth, kernel, expansion per stage, and resolution.

AttentiveNAS: arXiv 2011.09011; AlphaNet: arXiv 2102.07954; both after BigNAS, arXiv 2003.11142.
"""

from __future__ import annotations

from collections.abc import Sequence

from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import ConvNorm, Head
from supernets.blocks.stages import UniformStage, uniform_stages


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (192, 224, 256, 288),
    dropout: float = 0.2,
) -> Family:
    """About 1.1x10^11 archs per resolution; the published models A0 to A6 have 203M to 709M multiply-accumulates."""
    act, kernels = "swish", (3, 5)
    stages = [
        UniformStage((16, 24), (1, 2), kernels, (1,), stride=1, se=False),
        UniformStage((24, 32), (3, 4, 5), kernels, (4, 5, 6), stride=2, se=False),
        UniformStage((32, 40), (3, 4, 5, 6), kernels, (4, 5, 6), stride=2, se=True),
        UniformStage((64, 72), (3, 4, 5, 6), kernels, (4, 5, 6), stride=2, se=False),
        UniformStage((112, 120, 128), (3, 4, 5, 6, 7, 8), kernels, (4, 5, 6), stride=1, se=True),
        UniformStage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), kernels, (6,), stride=2, se=True),
        UniformStage((216, 224), (1, 2), kernels, (6,), stride=1, se=True),
    ]
    stem, hidden = Choice("stem.width", (16, 24)), Choice("head.width", (1792, 1984))
    choices, slots = uniform_stages(stages, stem, reduction=2, act=act)
    return Family(
        name="attentive_mobilenet",
        space=SearchSpace([Choice("resolution", tuple(resolutions)), stem, *choices, hidden]),
        slots=(
            Slot("stem", lambda width: ConvNorm(in_channels, width, kernel=3, stride=2, act=act), (stem.name,)),
            *slots,
            Slot(
                "head",
                lambda width, hidden: Head(width, 6 * width, hidden, num_classes, dropout, act),
                ("stage6.width", hidden.name),
                reduction=32,
            ),
        ),
        in_channels=in_channels,
    )
