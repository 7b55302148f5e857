import pytest

from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from supernets.blocks.stages import Stage, mbconv_stages, stage_blocks

STAGES = [Stage(16, 2, "relu", False), Stage(32, 1, "hard_swish", True)]
DEPTH, WIDTH, IN_WIDTH = Choice("stage1.depth", (1, 3)), Choice("stage1.width", (8, 16)), Choice("stage0.width", (4, 8))


def describe(name):
    """Return a block function that returns its name and arguments."""
    return lambda *values: (name, *values)


BLOCKS = [describe("first"), describe("second"), describe("third")]


def test_a_block_reads_the_depth_then_shared_choices_then_its_own():
    choices, slots = stage_blocks(
        DEPTH, BLOCKS, stage=1, shared=(WIDTH,), own={"kernel": (3, 5), "expand": (2,)}, reduction=4, stride=2
    )
    assert [choice.name for choice in choices] == [
        f"stage1.block{b}.{k}" for b in range(3) for k in ("kernel", "expand")
    ]
    assert [choice.values for choice in choices[:2]] == [(3, 5), (2,)]
    assert [choice.needs for choice in choices] == [DEPTH.needs_for(b) for b in (0, 0, 1, 1, 2, 2)]
    assert [(slot.path, slot.reduction) for slot in slots] == [("stages.1.0", 4), ("stages.1.1", 8), ("stages.1.2", 8)]
    for b, slot in enumerate(slots):
        assert slot.choices == ("stage1.depth", "stage1.width", f"stage1.block{b}.kernel", f"stage1.block{b}.expand")
    assert [slot.block(3, 8, 5, 2) for slot in slots] == [(name, 8, 5, 2) for name in ("first", "second", "third")]


def test_blocks_beyond_the_depth_are_skipped():
    _, slots = stage_blocks(DEPTH, BLOCKS, stage=1, reduction=1)
    assert [[slot.block(depth) is None for slot in slots] for depth in (1, 2, 3)] == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]


def test_the_first_block_may_read_the_input_width_in_place_of_the_depth():
    _, slots = stage_blocks(DEPTH, BLOCKS, stage=1, shared=(WIDTH,), in_width=IN_WIDTH, reduction=1)
    assert slots[0].choices == ("stage0.width", "stage1.width")
    assert slots[1].choices == ("stage1.depth", "stage1.width")
    assert slots[0].block(4, 8) == ("first", 4, 8)
    assert slots[1].block(3, 8) == ("second", 8)


def test_a_network_of_one_stage_has_names_without_its_number():
    choices, slots = stage_blocks(Choice("depth", (1, 2)), BLOCKS[:2], own={"heads": (1, 2)}, reduction=16)
    assert [choice.name for choice in choices] == ["block0.heads", "block1.heads"]
    assert [(slot.path, slot.reduction) for slot in slots] == [("blocks.0", 16), ("blocks.1", 16)]


@pytest.fixture
def parts():
    return mbconv_stages(STAGES, in_channels=16, reduction=2, depths=(1, 3), kernels=(3, 5), expands=(2, 4))


def test_choices_of_skipped_blocks_are_inactive(parts):
    choices, _ = parts
    space = SearchSpace(choices)
    per_block = 2 * 2
    assert space.size == (per_block + per_block**3) ** 2
    assert [name for name in space.smallest if name.startswith("stage0")] == [
        "stage0.depth",
        "stage0.block0.kernel",
        "stage0.block0.expand",
    ]


def test_slots_follow_the_data_flow(parts):
    _, slots = parts
    assert [(slot.path, slot.reduction) for slot in slots] == [
        ("stages.0.0", 2),
        ("stages.0.1", 4),
        ("stages.0.2", 4),
        ("stages.1.0", 4),
        ("stages.1.1", 4),
        ("stages.1.2", 4),
    ]


def test_inverted_residuals_of_a_stage(parts):
    _, slots = parts
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


def test_a_first_block_that_keeps_the_shape_has_a_residual():
    _, slots = mbconv_stages(
        [Stage(16, 1, "relu", False)], in_channels=16, reduction=1, depths=(1, 2), kernels=(3,), expands=(2,)
    )
    assert slots[0].block(1, 3, 2).residual


def test_a_stage_may_have_depths_of_its_own():
    stages = [*STAGES, Stage(64, 1, "relu", False, depths=(1,))]
    choices, slots = mbconv_stages(
        stages, in_channels=16, reduction=2, depths=(1, 3), kernels=(3, 5), expands=(2, 4), norm_eps=1e-3
    )
    assert [choice.values for choice in choices if choice.name.endswith("depth")] == [(1, 3), (1, 3), (1,)]
    assert [slot.path for slot in slots][-2:] == ["stages.1.2", "stages.2.0"]
    assert SearchSpace(choices).size == (4 + 4**3) ** 2 * 4
    assert {slot.block(1, 3, 2).norm_eps for slot in (slots[0], slots[-1])} == {1e-3}
