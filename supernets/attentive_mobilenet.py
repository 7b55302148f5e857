"""The space of AttentiveNAS (arXiv 2011.09011) and AlphaNet (arXiv 2102.07954), after BigNAS (arXiv 2003.11142)."""

from collections.abc import Sequence
from functools import partial

from ofa import Family
from supernets.blocks.convolutions import ConvNorm, Head, MBConv
from supernets.layout import Layout

_ACT = "swish"
_STAGES = (  # widths, depths, expansions, stride of the first block, squeeze-and-excite
    ((16, 24), (1, 2), (1,), 1, False),
    ((24, 32), (3, 4, 5), (4, 5, 6), 2, False),
    ((32, 40), (3, 4, 5, 6), (4, 5, 6), 2, True),
    ((64, 72), (3, 4, 5, 6), (4, 5, 6), 2, False),
    ((112, 120, 128), (3, 4, 5, 6, 7, 8), (4, 5, 6), 1, True),
    ((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (6,), 2, True),
    ((216, 224), (1, 2), (6,), 1, True),
)


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (192, 224, 256, 288),
    dropout: float = 0.2,
) -> Family:
    """Return the family: one width, depth, kernel and expansion per stage; 1.1x10^11 archs per resolution.

    The published models A0 to A6 have 203M to 709M multiply-accumulates. Every block has a shortcut.
    """
    layout = Layout(resolutions)
    width = layout.choice("stem.width", (16, 24))
    layout.block("stem", partial(ConvNorm, in_channels, kernel=3, stride=2, act=_ACT), width, stride=2)
    for s, (widths, depths, expands, stride, se) in enumerate(_STAGES):
        in_width, width = width, layout.choice(f"stage{s}.width", widths)
        depth = layout.choice(f"stage{s}.depth", depths)
        shared = (width, layout.choice(f"stage{s}.kernel", (3, 5)), layout.choice(f"stage{s}.expand", expands))
        first = partial(_first_block, stride, se, (int(in_width.values[-1]), widths[-1]))
        blocks = [first, *[partial(_block, se)] * (max(depths) - 1)]
        layout.stage(s, depth, blocks, shared=shared, in_width=in_width, stride=stride)
    hidden = layout.choice("head.width", (1792, 1984))
    layout.block("head", lambda last, hidden: Head(last, 6 * last, hidden, num_classes, dropout, _ACT), width, hidden)
    return layout.family("attentive_mobilenet", in_channels)


def _first_block(
    stride: int, se: bool, largest: tuple[int, int], in_channels: int, width: int, kernel: int, expand: int
) -> MBConv:
    # Where the largest network's shortcut needs no weights but smaller networks' do, the largest holds them for those.
    spare = in_channels == width and largest == (in_channels, width)
    return MBConv(in_channels, width, kernel, stride, expand, se, _ACT, residual=True, spare_shortcut=spare)


def _block(se: bool, width: int, kernel: int, expand: int) -> MBConv:
    return MBConv(width, width, kernel, 1, expand, se, _ACT, residual=True)
