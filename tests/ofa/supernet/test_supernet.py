import copy
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from torch import nn

import ofa
from ofa.core.errors import CheckpointError, SpaceError
from ofa.supernet.rules import Kernel


@pytest.fixture
def images(smooth_images):
    return smooth_images(4, 1, 16)


@pytest.fixture
def supernet(tiny, awake, smooth_images):
    made = ofa.Supernet(tiny)
    awake(made.network, smooth_images(32, 1, 16))
    return made.eval()


def archs(space, n=3):
    return [space.smallest, *(space.decode(row) for row in space.sample(n - 1, np.random.default_rng(1)))]


def channels_last(supernet):
    supernet.to(memory_format=torch.channels_last)


def double(supernet):
    supernet.to(torch.float64)


def load(assign):
    def change(supernet):
        state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        for tensor in state.values():
            if tensor.is_floating_point():
                tensor.mul_(1.05)
        supernet.load_state_dict(state, assign=assign)

    return change


def no_gradients(supernet):
    supernet.zero_grad(set_to_none=True)


def gradients_of_an_optimizer(supernet):
    torch.optim.SGD(supernet.parameters(), lr=0.1).zero_grad()


def one_tensor(supernet):
    convolution = supernet.network.get_submodule("stem.conv")
    convolution.weight = nn.Parameter(convolution.weight.detach() * 1.1)


def nothing(supernet):
    supernet.zero_grad()


CHANGES = [channels_last, double, load(False), load(True), no_gradients, gradients_of_an_optimizer, one_tensor, nothing]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__qualname__)
def test_subnets_follow_when_tensors_are_replaced(supernet, images, change):
    space = supernet.family.space
    for arch in archs(space):
        supernet.subnet(arch)(images).sum().backward()
    change(supernet)
    images = images.to(next(supernet.parameters()).dtype)
    full, buffers = dict(supernet.network.named_parameters()), dict(supernet.network.named_buffers())
    for arch in archs(space):
        subnet, extracted = supernet.subnet(arch), supernet.extract(arch)
        for name, parameter in subnet.named_parameters():
            expected = Kernel().view(full[name].detach(), parameter.shape, name)
            assert (parameter.data_ptr(), parameter.stride()) == (expected.data_ptr(), expected.stride())
            assert torch.equal(parameter, expected)
            assert parameter.grad.data_ptr() == Kernel().view(full[name].grad, parameter.shape, name).data_ptr()
        for name, buffer in subnet.named_buffers():
            assert buffer.data_ptr() == Kernel().view(buffers[name], buffer.shape, name).data_ptr()
        if change is channels_last:
            extracted.to(memory_format=torch.channels_last)
        assert torch.equal(subnet(images), extracted(images))
        supernet.zero_grad()
        subnet(images).square().sum().backward()
        extracted(images).square().sum().backward()
        for name, parameter in extracted.named_parameters():
            shared = full[name].grad
            torch.testing.assert_close(Kernel().view(shared, parameter.shape, name), parameter.grad)
            assert shared.count_nonzero() == Kernel().view(shared, parameter.shape, name).count_nonzero()
        assert full["stem.conv.weight"].grad.count_nonzero() > 0


def test_a_later_optimizer_step_is_seen_by_the_subnet_that_is_already_there(supernet, images):
    arch = supernet.family.space.smallest
    subnet = supernet.subnet(arch)
    before = subnet(images)
    before.square().sum().backward()
    torch.optim.SGD(supernet.parameters(), lr=1e-3).step()
    after = subnet(images)
    assert not torch.equal(before, after)
    assert torch.equal(after, supernet.extract(arch)(images))


def test_gradients_emptied_on_a_subnet_do_not_cut_it_off(supernet, images):
    arch = supernet.family.space.smallest
    supernet.subnet(arch).zero_grad()  # sets the views' gradients to None
    supernet.subnet(arch)(images).square().sum().backward()
    assert supernet.network.get_parameter("stem.conv.weight").grad.count_nonzero() > 0


def test_freezing_and_thawing_reach_subnets(supernet, images):
    arch, weight = supernet.family.space.smallest, supernet.network.get_parameter("stem.conv.weight")
    supernet.subnet(arch)(images).sum().backward()
    for frozen in (True, False):
        weight.requires_grad_(not frozen)
        supernet.zero_grad()
        supernet.subnet(arch)(images).square().sum().backward()
        assert (weight.grad.count_nonzero() == 0) == frozen
        assert supernet.extract(arch).get_parameter("stem.conv.weight").requires_grad != frozen


def test_a_copy_has_views_of_its_own(supernet, images):
    arch = supernet.family.space.smallest
    kept = supernet.subnet(arch)
    before = kept(images)
    copied = copy.deepcopy(supernet)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.1)
    assert torch.equal(supernet.subnet(arch)(images), before)
    assert torch.equal(copied.subnet(arch)(images), copied.extract(arch)(images))
    assert not torch.equal(copied.subnet(arch)(images), before)


def test_an_extracted_network_has_weights_of_its_own(supernet, images):
    arch = supernet.family.space.largest
    extracted = supernet.extract(arch)
    before = extracted(images)
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            tensor.zero_()
    assert torch.equal(extracted(images), before)
    theirs = {tensor.untyped_storage().data_ptr() for tensor in supernet.state_dict().values()}
    assert not theirs & {tensor.untyped_storage().data_ptr() for tensor in extracted.state_dict().values()}
    assert all(tensor.is_contiguous() for tensor in extracted.state_dict().values())


def test_the_mode_of_subnets_follows_the_supernet(supernet):
    largest, smallest = supernet.family.space.largest, supernet.family.space.smallest
    for training in (True, False, True):
        supernet.train(training)
        for arch in (largest, smallest):
            for network in (supernet.subnet(arch), supernet.extract(arch)):
                assert {module.training for module in network.modules()} == {training}


def test_two_subnets_held_at_once_share_tensors_and_nothing_else(supernet, images):
    space = supernet.family.space
    teacher = supernet.train().subnet(space.largest).eval()
    calls = []
    teacher.get_submodule("stem.conv").register_forward_hook(lambda *_: calls.append("teacher"))
    student = supernet.subnet(space.largest)
    assert not {id(module) for module in teacher.modules()} & {id(module) for module in student.modules()}
    assert not any(module.training for module in teacher.modules())
    assert all(module.training for module in student.modules())
    for name, parameter in student.named_parameters():
        shared = teacher.get_parameter(name)
        assert (parameter.data_ptr(), parameter.grad.data_ptr()) == (shared.data_ptr(), shared.grad.data_ptr())
    student.eval()(images)
    assert calls == []
    teacher.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_module_that_nobody_holds_is_used_again_and_built_only_once(supernet, monkeypatch):
    arch = supernet.family.space.largest
    parameters = {name: id(parameter) for name, parameter in supernet.subnet(arch).named_parameters()}
    monkeypatch.setattr("supernets.blocks.convolutions.he_init", None)  # building anything would fail
    for _ in range(3):
        assert {name: id(p) for name, p in supernet.subnet(arch).named_parameters()} == parameters


def hook(subnet):
    subnet.get_submodule("stem.conv").register_forward_pre_hook(lambda *_: 1 / 0)


def freeze(subnet):
    subnet.requires_grad_(False)


def detach(subnet):
    subnet.zero_grad(set_to_none=True)


def replace_classifier(subnet):
    subnet.get_submodule("head").classifier = nn.Linear(96, 3)


def batchnorm_in_eval(subnet):
    subnet.get_submodule("stem.bn").eval()


@pytest.mark.parametrize("change", [hook, freeze, detach, replace_classifier, batchnorm_in_eval])
def test_what_was_done_to_a_subnet_does_not_reach_the_next_one(supernet, images, change):
    arch = supernet.family.space.largest
    before = supernet.train().subnet(arch).eval()(images)
    change(supernet.subnet(arch))
    subnet = supernet.subnet(arch)
    assert all(module.training for module in subnet.modules())
    assert torch.equal(subnet.eval()(images), before)
    subnet(images).square().sum().backward()
    assert supernet.network.get_parameter("head.classifier.weight").grad.count_nonzero() > 0


def test_least_recently_used_modules_are_dropped(supernet, monkeypatch):
    space = supernet.family.space
    monkeypatch.setattr("ofa.supernet.views._MAX_TENSORS", 100)
    for row in space.sample(20, np.random.default_rng(0)):
        subnet = supernet.subnet(row)
        pooled = [view for views in supernet._views._pool.values() for view in views]
        assert sum(len(view.parameters) for view in pooled) <= 100 + len(list(subnet.parameters()))
        most_recent = list(supernet._views._pool.values())[-1]
        assert any(view.module in list(subnet.modules()) for view in most_recent)


def test_a_row_serves_as_well_as_an_arch(supernet, images):
    row = supernet.family.space.sample(1, np.random.default_rng(2))[0]
    arch = supernet.family.space.decode(row)
    for make in (supernet.subnet, supernet.extract):
        assert torch.equal(make(row)(images), make(arch)(images))


@pytest.mark.parametrize("name", ["tiny", "coupled", "hybrid_small"])
def test_a_saved_supernet_is_loaded_by_its_file_alone(tiny, tmp_path, name):
    families = {"tiny": tiny, "coupled": tiny.coupled({"*.kernel": "stage0.depth"})}
    family = families.get(name) or ofa.create_family(name, in_channels=1)
    supernet = ofa.Supernet(family, seed=4)
    supernet.save(tmp_path / "supernet.safetensors")
    loaded = ofa.Supernet.load(tmp_path / "supernet.safetensors")
    assert json.dumps(loaded.family.options) == json.dumps(family.options)
    assert loaded.family.space.choices == family.space.choices
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in supernet.state_dict().items())


def test_weights_are_read_from_all_that_people_have(tiny, tmp_path):
    supernet = ofa.Supernet(tiny, seed=4)
    supernet.save(tmp_path / "supernet.safetensors")
    torch.save(supernet.state_dict(), tmp_path / "supernet.pth")
    torch.save({"model": supernet.network.state_dict(), "epoch": 3}, tmp_path / "network.pth")
    for name in ("supernet.safetensors", "supernet.pth", "network.pth"):
        loaded = ofa.Supernet.load(tmp_path / name, tiny)
        assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in supernet.state_dict().items())


def test_files_of_another_network_or_without_a_family_are_refused(tiny, tmp_path):
    unnamed = dataclasses.replace(tiny, origin=None)
    ofa.Supernet(unnamed).save(tmp_path / "unnamed.safetensors")
    with pytest.raises(CheckpointError, match=r"unnamed\.safetensors does not say which family"):
        ofa.Supernet.load(tmp_path / "unnamed.safetensors")
    assert ofa.Supernet.load(tmp_path / "unnamed.safetensors", tiny).family is tiny
    wide = ofa.create_family("small_mobilenet_v3", **tiny.options | {"width_mult": 1.0})
    with pytest.raises(CheckpointError, match=r"another network \(.*stem\.conv\.weight \(8, 1, 3, 3\) instead of"):
        ofa.Supernet.load(tmp_path / "unnamed.safetensors", wide)


def test_a_supernet_can_be_pickled(supernet, images):
    buffer = io.BytesIO()
    torch.save(supernet, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    arch = supernet.family.space.smallest
    assert torch.equal(loaded.subnet(arch)(images), supernet.subnet(arch)(images))


def test_the_same_seed_gives_the_same_weights_and_the_generator_stays(tiny):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, same, other = (ofa.Supernet(tiny, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert not torch.equal(first["network.stem.conv.weight"], other["network.stem.conv.weight"])


def test_subnets_draw_nothing_from_the_generator(supernet):
    before = torch.get_rng_state()
    supernet.extract(supernet.family.space.smallest)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_supernet_itself_is_the_largest_network(supernet, images):
    assert torch.equal(supernet(images), supernet.subnet(supernet.family.space.largest)(images))
    assert list(supernet.state_dict()) == [f"network.{name}" for name in supernet.network.state_dict()]


@pytest.mark.parametrize("change", [{"stage0.depth": 0}, {"stage0.depth": 9}, {"kernel": 3}, {"resolution": 17}])
def test_archs_outside_of_the_space(supernet, change):
    arch = dict(supernet.family.space.largest) | change
    for make in (supernet.subnet, supernet.extract):
        with pytest.raises(SpaceError, match=r"not allowed|unknown choice"):
            make(arch)


class Odd(torch.nn.Module):
    """A network with a tied weight, and tensors that are neither parameters nor buffers."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.head = torch.nn.Linear(width, 3)
        self.scale, self.shifts = torch.tensor([0.5]), {"a": [torch.tensor(2.0)]}
        self.listed = [torch.tensor([3.0])]

    def forward(self, x):
        x = x.mean(dim=(2, 3))[:, : self.first.in_features].expand(-1, self.first.in_features)
        return self.head(self.second(self.first(x * self.scale + self.listed[0])))


def test_tied_parameters_and_tensors_that_are_plain_attributes(tmp_path):
    space = ofa.SearchSpace([ofa.Choice("width", (2, 4))])
    family = ofa.Family.from_builder(space, lambda arch: Odd(arch["width"]), in_channels=1, resolution=4)
    supernet, images = ofa.Supernet(family, seed=3), torch.randn(2, 1, 4, 4)
    supernet.save(tmp_path / "odd.safetensors")
    loaded = ofa.Supernet.load(tmp_path / "odd.safetensors", family)
    for arch in (space.smallest, space.largest):
        expected = supernet.subnet(arch)(images)
        assert torch.equal(supernet.extract(arch)(images), expected)
        assert torch.equal(loaded.subnet(arch)(images), expected)
    loaded.subnet(space.smallest)(images).sum().backward()
    assert loaded.network.get_parameter("first.weight") is loaded.network.get_parameter("second.weight")
    assert loaded.network.get_parameter("first.weight").grad[:2, :2].abs().sum() > 0
