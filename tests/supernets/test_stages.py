import pytest

from ofa.space import SearchSpace
from supernets.stages import Stage, mbconv_stages

STAGES = [Stage(16, 2, "relu", False), Stage(32, 1, "hard_swish", True)]


@pytest.fixture
def made():
    return mbconv_stages(STAGES, in_channels=16, reduction=2, depths=(1, 3), kernels=(3, 5), expands=(2, 4))


def test_choices_of_skipped_blocks_are_inactive(made):
    choices, _ = made
    space = SearchSpace(choices)
    per_block = 2 * 2
    assert space.size == (per_block + per_block**3) ** 2
    assert [name for name in space.smallest if name.startswith("stage0")] == [
        "stage0.depth",
        "stage0.block0.kernel",
        "stage0.block0.expand",
    ]


def test_slots_are_where_the_data_flows(made):
    _, slots = made
    assert [(slot.path, slot.reduction) for slot in slots] == [
        ("stages.0.0", 2),
        ("stages.0.1", 4),
        ("stages.0.2", 4),
        ("stages.1.0", 4),
        ("stages.1.1", 4),
        ("stages.1.2", 4),
    ]


def test_blocks_of_a_stage(made):
    _, slots = made
    first, second, third, other, *_ = (slot.block(3, 5, 4) for slot in slots)
    assert (first.in_channels, first.out_channels, first.stride, first.residual) == (16, 16, 2, False)
    assert (second.stride, second.residual, second.kernel, second.expand, second.se) == (1, True, 5, 4, False)
    assert second == third
    assert (other.in_channels, other.out_channels, other.residual, other.se, other.act) == (
        16,
        32,
        False,
        True,
        "hard_swish",
    )
    assert [slot.block(1, 3, 2) is None for slot in slots] == [False, True, True] * 2
    assert [slot.block(2, 3, 2) is None for slot in slots] == [False, False, True] * 2


def test_a_first_block_that_keeps_its_shape_has_a_residual():
    _, slots = mbconv_stages([Stage(16, 1, "relu", False)], 16, 1, depths=(1, 2), kernels=(3,), expands=(2,))
    assert slots[0].block(1, 3, 2).residual
