import pytest

from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from supernets.blocks.stages import Stage, UniformStage, mbconv_stages, uniform_stages

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


def test_a_stage_may_have_depths_of_its_own():
    stages = [*STAGES, Stage(64, 1, "relu", False, depths=(1,))]
    choices, slots = mbconv_stages(stages, 16, 2, depths=(1, 3), kernels=(3, 5), expands=(2, 4), norm_eps=1e-3)
    assert [choice.values for choice in choices if choice.name.endswith("depth")] == [(1, 3), (1, 3), (1,)]
    assert [slot.path for slot in slots][-2:] == ["stages.1.2", "stages.2.0"]
    assert SearchSpace(choices).size == (4 + 4**3) ** 2 * 4
    assert {slot.block(1, 3, 2).norm_eps for slot in (slots[0], slots[-1])} == {1e-3}


UNIFORM = [
    UniformStage((16, 24), (1, 2), (3, 5), (1,), stride=1, se=False),
    UniformStage((24, 32), (2, 3), (3,), (4, 6), stride=2, se=True),
]


@pytest.fixture
def uniform():
    return uniform_stages(UNIFORM, Choice("stem.width", (16, 24)), reduction=2, act="swish")


def test_a_uniform_stage_has_one_choice_of_each_kind(uniform):
    choices, _ = uniform
    kinds = ("width", "depth", "kernel", "expand")
    assert [choice.name for choice in choices] == [f"stage{s}.{kind}" for s in (0, 1) for kind in kinds]
    assert SearchSpace(choices).size == 2**3 * 2**3


def test_slots_of_uniform_stages(uniform):
    _, slots = uniform
    assert [(slot.path, slot.reduction) for slot in slots] == [
        ("stages.0.0", 2),
        ("stages.0.1", 2),
        ("stages.1.0", 2),
        ("stages.1.1", 4),
        ("stages.1.2", 4),
    ]
    assert slots[0].choices == ("stem.width", "stage0.width", "stage0.kernel", "stage0.expand")
    assert slots[2].choices == ("stage0.width", "stage1.width", "stage1.kernel", "stage1.expand")
    assert slots[4].choices == ("stage1.depth", "stage1.width", "stage1.kernel", "stage1.expand")


def test_blocks_of_uniform_stages(uniform):
    _, slots = uniform
    first, later = slots[2].block(16, 32, 3, 6), slots[4].block(3, 32, 3, 6)
    assert (first.in_channels, first.out_channels, first.stride, first.expand, first.se) == (16, 32, 2, 6, True)
    assert (later.in_channels, later.out_channels, later.stride, later.act, later.residual) == (
        32,
        32,
        1,
        "swish",
        True,
    )
    assert slots[4].block(2, 32, 3, 6) is None
    assert slots[3].block(2, 32, 3, 6) == later


def test_the_largest_holds_the_shortcut_that_only_smaller_networks_use(uniform):
    _, slots = uniform
    spare = {(i, o): slots[0].block(i, o, 3, 1).spare_shortcut for i in (16, 24) for o in (16, 24)}
    assert spare == {(16, 16): False, (16, 24): False, (24, 16): False, (24, 24): True}
    assert not any(slots[2].block(i, o, 3, 4).spare_shortcut for i in (16, 24) for o in (24, 32))
