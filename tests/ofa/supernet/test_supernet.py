import copy

import numpy as np
import pytest
import torch
from torch import nn

import ofa
from ofa.core.errors import SpaceError
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


def test_a_later_optimiser_step_is_seen_by_the_subnet_that_is_already_there(supernet, images):
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


def test_kept_blocks_take_the_present_mode(supernet):
    largest, smallest = supernet.family.space.largest, supernet.family.space.smallest
    supernet.train().subnet(largest)
    supernet.eval().subnet(smallest)
    supernet.train()
    assert all(module.training for module in supernet.subnet(smallest).modules())


def test_blocks_are_built_once(supernet, monkeypatch):
    arch = supernet.family.space.largest
    first = dict(supernet.subnet(arch).named_parameters())
    monkeypatch.setattr("supernets.blocks.convolutions.he_init", None)  # building anything would fail
    assert all(first[name] is parameter for name, parameter in supernet.subnet(arch).named_parameters())


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
