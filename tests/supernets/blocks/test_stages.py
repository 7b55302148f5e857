import pytest

from ofa.space.search_space import SearchSpace
from supernets.blocks.stages import Stage, add_mbconv_stages
from supernets.layout import Layout

STAGES = [Stage(16, 2, "relu", False), Stage(32, 1, "hard_swish", True)]


def add_stages(stages, **options):
    """Return the choices and slots of stages on a feature map half as large as the image."""
    layout = Layout((32,))
    layout.reduction = 2
    options = {"in_channels": 16, "depths": (1, 3), "kernels": (3, 5), "expands": (2, 4)} | options
    add_mbconv_stages(layout, stages, **options)
    return layout.choices[1:], layout.slots


@pytest.fixture
def parts():
    return add_stages(STAGES)


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


def test_only_the_first_block_of_a_stage_changes_stride_and_channels(parts):
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
    _, slots = add_stages([Stage(16, 1, "relu", False)])
    assert slots[0].block(1, 3, 2).residual


def test_a_stage_may_have_depths_of_its_own():
    choices, slots = add_stages([*STAGES, Stage(64, 1, "relu", False, depths=(1,))], norm_eps=1e-3)
    assert [choice.values for choice in choices if choice.name.endswith("depth")] == [(1, 3), (1, 3), (1,)]
    assert [slot.path for slot in slots][-2:] == ["stages.1.2", "stages.2.0"]
    assert SearchSpace(choices).size == (4 + 4**3) ** 2 * 4
    assert {slot.block(1, 3, 2).norm_eps for slot in (slots[0], slots[-1])} == {1e-3}
