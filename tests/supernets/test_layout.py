import pytest

from ofa.space.choice import Choice
from supernets.blocks.convolutions import ConvNorm, Head
from supernets.layout import Layout


def describe(name):
    """Return a block function that returns its name and arguments."""
    return lambda *values: (name, *values)


BLOCKS = [describe("first"), describe("second"), describe("third")]


@pytest.fixture
def layout():
    return Layout((8, 16))


def names(choices):
    return [choice.name for choice in choices]


def positions(layout):
    return [(slot.path, slot.reduction) for slot in layout.slots]


def test_choices_and_slots_are_in_the_order_they_are_added(layout):
    width = layout.choice("stem.width", [8, 16])
    layout.block("stem", describe("stem"), width, stride=2)
    hidden = layout.choice("head.width", (32,))
    layout.block("head", describe("head"), width, hidden)
    assert names(layout.choices) == ["resolution", "stem.width", "head.width"]
    assert [choice.values for choice in layout.choices] == [(8, 16), (8, 16), (32,)]
    assert positions(layout) == [("stem", 1), ("head", 2)]
    assert [slot.choices for slot in layout.slots] == [("stem.width",), ("stem.width", "head.width")]
    assert layout.slots[1].block(8, 32) == ("head", 8, 32)


def test_a_block_of_a_stage_reads_the_depth_then_shared_choices_then_its_own(layout):
    depth, width = layout.choice("stage1.depth", (1, 3)), layout.choice("stage1.width", (8, 16))
    layout.block("stem", describe("stem"), stride=4)
    layout.stage(1, depth, BLOCKS, shared=(width,), own={"kernel": (3, 5), "expand": [2]}, stride=2)
    own = layout.choices[3:]
    assert names(own) == [f"stage1.block{b}.{name}" for b in (0, 1, 2) for name in ("kernel", "expand")]
    assert [choice.values for choice in own[:2]] == [(3, 5), (2,)]
    assert [choice.needs for choice in own] == [depth.needs_for(b) for b in (0, 0, 1, 1, 2, 2)]
    assert positions(layout)[1:] == [("stages.1.0", 4), ("stages.1.1", 8), ("stages.1.2", 8)]
    for b, slot in enumerate(layout.slots[1:]):
        assert slot.choices == ("stage1.depth", "stage1.width", f"stage1.block{b}.kernel", f"stage1.block{b}.expand")
    blocks = [slot.block(3, 8, 5, 2) for slot in layout.slots[1:]]
    assert blocks == [(name, 8, 5, 2) for name in ("first", "second", "third")]


def test_blocks_beyond_the_depth_are_skipped(layout):
    layout.stage(1, layout.choice("stage1.depth", (1, 2, 3)), BLOCKS)
    for depth in (1, 2, 3):
        assert [slot.block(depth) is None for slot in layout.slots] == [b >= depth for b in range(3)]


def test_the_first_block_may_read_the_input_width_in_place_of_the_depth(layout):
    in_width, width = layout.choice("stage0.width", (4, 8)), layout.choice("stage1.width", (8, 16))
    layout.stage(1, layout.choice("stage1.depth", (1, 3)), BLOCKS, shared=(width,), in_width=in_width)
    assert [slot.choices[0] for slot in layout.slots] == ["stage0.width", "stage1.depth", "stage1.depth"]
    assert layout.slots[0].block(4, 8) == ("first", 4, 8)
    assert layout.slots[1].block(3, 8) == ("second", 8)


def test_a_network_of_one_stage_has_names_without_a_number(layout):
    layout.stage(None, layout.choice("depth", (1, 2)), BLOCKS[:2], own={"heads": (1, 2)})
    assert names(layout.choices[2:]) == ["block0.heads", "block1.heads"]
    assert positions(layout) == [("blocks.0", 1), ("blocks.1", 1)]


def test_the_family_has_the_layouts_space_and_slots(layout):
    width = layout.choice("width", (8, 16))
    layout.block("stem", lambda width: ConvNorm(1, width, stride=2), width, stride=2)
    layout.block("head", lambda width: Head(width, None, None, 10), width)
    family = layout.family("two_blocks", 1, resolution_multiple=4)
    assert (family.name, family.in_channels, family.resolution_multiple) == ("two_blocks", 1, 4)
    assert family.space.choices == (Choice("resolution", (8, 16)), width)
    assert list(family.slots) == layout.slots
    assert family.build(family.space.largest).get_submodule(family.classifiers[0]).out_features == 10
