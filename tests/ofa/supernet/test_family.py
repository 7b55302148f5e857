import copy
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn

import ofa
from ofa.core.errors import FamilyError, SpaceError
from ofa.cost.counted import macs_m
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.family import Family
from ofa.supernet.registry import check_family
from ofa.supernet.slot import Slot, assemble
from supernets.blocks.convolutions import ConvNorm, Head

FROM_FILE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn
from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import ConvNorm, Head

@dataclass(frozen=True)
class Pool:
    channels: int
    size: int
    def build(self):
        return nn.AvgPool2d(self.size)
    def input_shape(self, size):
        return (self.channels, size, size)

def family(num_classes=10, in_channels=3, width=8):
    return Family(
        name="from_file",
        space=SearchSpace([Choice("resolution", (16, 32)), Choice("kernel", (3, 5))]),
        slots=(
            Slot("stem", lambda kernel: ConvNorm(in_channels, width, kernel, 2), ("kernel",)),
            Slot("pool", lambda: Pool(width, 2), reduction=2),
            Slot("head", lambda: Head(width, 16, 16, num_classes), reduction=4),
        ),
        in_channels=in_channels,
    )
"""


@pytest.fixture
def from_file(tmp_path):
    path = tmp_path / "from_file.py"
    path.write_text(FROM_FILE)
    return str(path)


def make(slots, choices=None):
    choices = choices or [Choice("resolution", (16, 32))]
    return Family("made", SearchSpace(choices), tuple(slots))


def test_a_family_from_a_file_is_as_good_as_a_registered_one(from_file):
    family = ofa.create_family(from_file, num_classes=4, in_channels=1)
    assert (family.name, family.space.size, family.resolutions) == ("from_file", 4, (16, 32))
    supernet = ofa.Supernet(family).eval()
    arch = family.space.smallest
    images = torch.randn(3, *family.input_shape(arch))
    assert torch.equal(supernet.subnet(arch)(images), supernet.extract(arch)(images))
    rows = family.space.rows([family.space.smallest, family.space.largest])
    assert (macs_m(family)(rows) > 0).all()


def test_a_file_named_as_a_module_does_not_take_its_place(tmp_path):
    (tmp_path / "random.py").write_text(FROM_FILE)
    before = sys.modules.get("random")
    assert ofa.create_family(str(tmp_path / "random.py")).name == "from_file"
    assert sys.modules.get("random") is before


def test_registered_families():
    assert ofa.list_families() == sorted(ofa.list_families())
    assert {"small_mobilenet_v3", "ofa_mobilenet_v3"} <= set(ofa.list_families())
    assert ofa.create_family("small_mobilenet_v3", num_classes=3).options["num_classes"] == 3


def test_an_unknown_family():
    with pytest.raises(FamilyError, match=r"unknown family 'resnet'; .*ofa_resnet50.*; or give the path"):
        ofa.create_family("resnet")


def test_an_unknown_option(from_file):
    with pytest.raises(FamilyError, match="'small_mobilenet_v3' has no option 'depth'; did you mean dropout"):
        ofa.create_family("small_mobilenet_v3", depth=3, num_classes=10)
    with pytest.raises(FamilyError, match="no option 'depth'; did you mean width"):
        ofa.create_family(from_file, depth=3)


def test_a_missing_file(tmp_path):
    for name in ("nowhere.py", "folder.py"):
        (tmp_path / "folder.py").mkdir(exist_ok=True)
        with pytest.raises(FamilyError, match=rf"no family file .*{name}"):
            ofa.create_family(str(tmp_path / name))


@pytest.mark.parametrize("text", ["", "family = 3", "def families(): ..."])
def test_a_file_without_a_family(tmp_path, text):
    (tmp_path / "empty.py").write_text(text)
    with pytest.raises(FamilyError, match=r"empty\.py defines no function family"):
        ofa.create_family(str(tmp_path / "empty.py"))


def test_two_slots_with_one_path():
    with pytest.raises(FamilyError, match=r"two slots with one path: \['stem', 'stem'\]"):
        make([Slot("stem", lambda: ConvNorm(3, 8)), Slot("stem", lambda: ConvNorm(8, 8))])


def test_a_largest_network_that_skips_a_slot():
    with pytest.raises(FamilyError, match=r"the largest network skips \['b'\]"):
        make(
            [
                Slot("a", lambda: ConvNorm(3, 8)),
                Slot("b", lambda r: None if r > 16 else ConvNorm(8, 8), ("resolution",)),
            ]
        )


def test_a_slot_that_reads_an_unknown_choice_and_a_space_without_resolution():
    with pytest.raises(SpaceError, match="unknown choice 'kernel'"):
        make([Slot("a", lambda k: ConvNorm(3, 8, k), ("kernel",))])
    with pytest.raises(SpaceError, match="unknown choice 'resolution'"):
        make([Slot("a", lambda: ConvNorm(3, 8))], [Choice("kernel", (3, 5))])


def test_blocks_are_made_from_the_values_in_the_order_the_slot_names_them():
    choices = [Choice("resolution", (16, 32)), Choice("kernel", (3, 5, 7)), Choice("width", (8, 16))]
    calls = []

    def block(width, kernel):
        calls.append((width, kernel))
        return ConvNorm(3, width, kernel)

    family = make([Slot("a", block, ("width", "kernel")), Slot("head", lambda: Head(16, 8, 8, 4))], choices)
    assert family.columns == ((2, 1), ())
    row = family.space.row({"resolution": 16, "kernel": 5, "width": 8})
    for _ in range(2):
        assert [(slot.path, block) for slot, block in family.blocks(row)] == [
            ("a", ConvNorm(3, 8, 5)),
            ("head", Head(16, 8, 8, 4)),
        ]
    assert calls == [(16, 7), (8, 5)]  # the largest at construction; each pair once
    assert family.input_shape(family.space.decode(row)) == (3, 16, 16)


@pytest.mark.parametrize(
    ("resolution", "reduction", "size"), [(32, 1, 32), (32, 8, 4), (28, 8, 4), (25, 2, 13), (1, 4, 1)]
)
def test_the_size_of_a_slot_is_what_padded_strides_leave(resolution, reduction, size):
    assert Slot("a", lambda: None, reduction=reduction).size(resolution) == size


def test_networks_are_nested_by_path_and_run_in_order():
    network = assemble(
        {"a": nn.Identity(), "s.1.0": nn.ReLU(), "s.1.2": nn.Tanh(), "s.0": nn.Sigmoid(), "z": nn.Flatten()}
    )
    assert [name for name, module in network.named_modules() if not isinstance(module, nn.Sequential)] == [
        "a",
        "s.1.0",
        "s.1.2",
        "s.0",
        "z",
    ]
    x = torch.randn(2, 3, 4)
    assert torch.equal(network(x), torch.relu(x).tanh().sigmoid().flatten(1))
    assert all(module.training for module in network.modules())
    assert not any(isinstance(m, nn.Sequential) and m.training for m in assemble({"a.b": nn.ReLU()}, False).modules())


def test_building_an_arch_by_itself_gives_what_a_subnet_has(tiny):
    arch = tiny.space.smallest
    alone, subnet = tiny.build(arch), ofa.Supernet(tiny).subnet(arch)
    assert {k: v.shape for k, v in alone.state_dict().items()} == {k: v.shape for k, v in subnet.state_dict().items()}


def test_coupled_choices_follow_what_their_stars_stand_for():
    family = ofa.create_family("small_mobilenet_v3", num_classes=3)
    coupled = family.coupled({"stage*.block*.expand": "stage*.depth"})
    follows = {choice.name: choice.follows for choice in coupled.space.choices if choice.follows is not None}
    assert follows == {name: f"{name.split('.')[0]}.depth" for name in family.space.names if name.endswith(".expand")}
    assert (coupled.name, coupled.options, coupled.slots) == (family.name, family.options, family.slots)
    # A stage of so many blocks has as many kernels to choose, and one expansion for all.
    kernels, depths = (
        family.space.choices[family.space.column(name)].values for name in ("stage0.block0.kernel", "stage0.depth")
    )
    n_stages = sum(name.endswith(".depth") for name in family.space.names)
    per_stage = sum(len(kernels) ** depth for depth in depths)
    assert coupled.space.size == len(family.resolutions) * per_stage**n_stages


def test_a_coupled_family_has_the_networks_of_the_family(tiny, awake, smooth_images):
    coupled = tiny.coupled({"*.kernel": "stage0.depth"})
    arch = coupled.space.decode(coupled.space.sample(1, np.random.default_rng(3))[0])
    supernet = ofa.Supernet(coupled)
    images = smooth_images(4, *coupled.input_shape(arch)[:2])
    awake(supernet.network, images)
    whole = ofa.Supernet(tiny)
    whole.load_state_dict(supernet.state_dict())
    for network in (supernet.subnet(arch), supernet.extract(arch)):
        assert torch.allclose(network.eval()(images), whole.subnet(arch).eval()(images), atol=1e-6)


def test_coupling_nothing_changes_nothing_and_couplings_add_up(tiny):
    assert tiny.coupled({}).space.choices == tiny.space.choices
    one, other = {"stage*.block*.expand": "stage*.depth"}, {"*.kernel": "resolution"}
    both = tiny.coupled(one | other).space.choices
    assert tiny.coupled(one).coupled(other).space.choices == tiny.coupled(other).coupled(one).space.choices == both


def test_the_first_pair_that_matches_holds_and_no_choice_follows_itself(tiny):
    coupled = tiny.coupled({"stage1.depth": "resolution", "stage*.depth": "stage0.depth"})
    depths = {choice.name: choice.follows for choice in coupled.space.choices if choice.name.endswith(".depth")}
    assert depths.pop("stage0.depth") is None
    assert depths.pop("stage1.depth") == "resolution"
    assert set(depths.values()) == {"stage0.depth"}


def test_a_family_of_any_constructor_can_be_coupled():
    class Net(nn.Sequential):
        def __init__(self, arch):
            super().__init__(nn.Conv2d(3, arch["width"], arch["kernel"]), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    space = SearchSpace([Choice("width", (4, 6, 8)), Choice("kernel", (1, 3))])
    coupled = Family.from_builder(space, Net, resolution=8).coupled({"kernel": "width"})
    assert coupled.space.size == 3
    assert coupled.build({"width": 6, "resolution": 8})[0].kernel_size == (3, 3)
    assert ofa.Supernet(coupled).subnet({"width": 4}).state_dict()["0.weight"].shape == (4, 3, 1, 1)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            {"stage*.blok*.expand": "stage*.depth"},
            r"family 'small_mobilenet_v3': cannot couple 'stage\*\.blok\*\.expand' to 'stage\*\.depth': unknown choice "
            r"'stage\*\.blok\*\.expand'; did you mean stage",
        ),
        ({"stage*.block*.expand": "stage*.deep"}, r"to 'stage\*\.deep': unknown choice 'stage0\.deep'; did you mean"),
        ({"*.expand": "*.depth"}, r"unknown choice 'stage0\.block0\.depth'"),
        ({"stage*.depth": "stage*.block*.expand"}, r"unknown choice 'stage0\.block\*\.expand'"),
        (
            {"stage*.depth": "stage*.block0.expand"},
            r"'stage0\.block0\.expand' comes after 'stage0\.depth'; let 'stage0\.block0\.expand' follow",
        ),
        ({"resolution[": "stage0.depth"}, "unknown choice 'resolution\\['"),
    ],
)
def test_wrong_couplings(tiny, pairs, message):
    with pytest.raises(FamilyError, match=message):
        tiny.coupled(pairs)


def test_a_choice_cannot_follow_one_that_follows(tiny):
    with pytest.raises(
        FamilyError, match=r"choice 'stage0\.block0\.expand' follows 'stage0\.depth', which is not free"
    ):
        tiny.coupled({"stage*.block*.expand": "stage*.depth", "stage*.depth": "resolution"})


def test_names_are_listed_by_pattern():
    assert ofa.list_families("*mobile*") == [name for name in ofa.list_families() if "mobile" in name]
    assert ofa.list_families("nothing*") == []


def test_options_of_a_wrong_kind_are_one_error():
    for options in ({"resolutions": 16}, {"width_mult": None}, {"width_mult": math.inf}):
        with pytest.raises(FamilyError, match="'small_mobilenet_v3' refuses the options"):
            ofa.create_family("small_mobilenet_v3", **options)
    for options in ({"num_classes": "ten"}, {"dropout": 2}):
        with pytest.raises(FamilyError, match="cannot build Arch"):
            check_family(ofa.create_family("small_mobilenet_v3", **options))
    with pytest.raises(SpaceError, match="give finite numbers in ascending order"):
        ofa.create_family("small_mobilenet_v3", resolutions="wide")


@pytest.mark.parametrize("name", ofa.list_families())
def test_registered_families_are_pickled_by_how_they_were_made(name):
    family = ofa.create_family(name, num_classes=3)
    loaded = pickle.loads(pickle.dumps(family))
    assert (loaded.name, loaded.options, loaded.space.choices) == (family.name, family.options, family.space.choices)
    assert copy.deepcopy(family) is family
    assert len(repr(family)) < 120


def test_families_of_a_file_and_coupled_families_are_pickled_too(from_file, tiny):
    assert pickle.loads(pickle.dumps(ofa.create_family(from_file, width=16))).options["width"] == 16
    first, second = {"*.kernel": "stage0.depth"}, {"stage1.block*.kernel": "stage1.depth"}
    coupled = tiny.coupled(first).coupled(second)
    assert pickle.loads(pickle.dumps(coupled)).space.choices == coupled.space.choices
    assert coupled.space.choices[coupled.space.column("stage1.block0.kernel")].follows == "stage1.depth"


def test_a_row_serves_as_well_as_an_arch(tiny):
    row = tiny.space.sample(1, np.random.default_rng(5))[0]
    arch = tiny.space.decode(row)
    assert tiny.blocks_by_path(row) == tiny.blocks_by_path(arch)
    assert tiny.input_shape(row) == tiny.input_shape(arch)
    with pytest.raises(SpaceError, match="requires int64 of shape"):
        tiny.build(row[:-1])
