import pytest
import torch
from torch import nn

from ofa.errors import FamilyError
from ofa.sharing import bind, nested_view, share


@pytest.mark.parametrize(
    ("full", "small", "slices"),
    [
        ((6,), (4,), (slice(0, 4),)),
        ((6, 5), (4, 5), (slice(0, 4), slice(0, 5))),
        ((8, 6, 7, 7), (3, 2, 3, 5), (slice(0, 3), slice(0, 2), slice(2, 5), slice(1, 6))),
        ((8, 1, 5, 5), (8, 1, 3, 3), (slice(0, 8), slice(0, 1), slice(1, 4), slice(1, 4))),
        ((4, 4, 3, 3), (4, 4, 1, 3), (slice(0, 4), slice(0, 4), slice(1, 2), slice(0, 3))),
        ((4, 4, 7), (2, 2, 3), (slice(0, 2), slice(0, 2), slice(2, 5))),
        ((), (), ()),
    ],
)
def test_views_are_leading_slices_and_the_centre(full, small, slices):
    tensor = torch.randn(full)
    view = nested_view(tensor, small, "weight")
    assert torch.equal(view, tensor[slices])
    assert view.shape == small
    view.fill_(7.0)
    assert (tensor == 7.0).sum() == view.numel()


def test_a_view_of_a_channels_last_tensor_is_its_slice():
    tensor = torch.randn(8, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    view = nested_view(tensor, (3, 2, 3, 3), "weight")
    assert torch.equal(view, tensor[:3, :2, 1:4, 1:4])
    assert view.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("small", [(5, 3), (4, 4), (4,), (4, 3, 1), ()])
def test_shapes_that_do_not_nest(small):
    with pytest.raises(FamilyError, match=r"stem\.weight: shape .* does not nest in the largest network's \(4, 3\)"):
        nested_view(torch.zeros(4, 3), small, "stem.weight")


def network(channels, kernel=3):
    return nn.Sequential(nn.Conv2d(2, channels, kernel, padding=kernel // 2), nn.BatchNorm2d(channels))


def test_shared_modules_write_into_the_largest():
    largest, images = network(6, 5), torch.randn(3, 2, 8, 8)
    for parameter in largest.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.device("meta"):
        small = network(4, 3)
    share(small, largest, "stem")
    assert torch.equal(small[0].weight, largest[0].weight[:4, :, 1:4, 1:4])
    small(images).square().sum().backward()
    for name, parameter in small.named_parameters():
        assert torch.equal(parameter.grad, nested_view(largest.get_parameter(name).grad, parameter.shape, name))
    assert largest[0].weight.grad[:4, :, 1:4, 1:4].abs().min() > 0
    assert largest[0].weight.grad.count_nonzero() == 4 * 2 * 3 * 3
    assert largest[1].running_mean[:4].abs().min() > 0
    assert largest[1].running_mean[4:].abs().max() == 0
    assert largest[1].num_batches_tracked == 1


def test_without_gradient_buffers_there_are_none_in_the_view_and_frozen_stays_frozen():
    largest = network(6)
    largest[0].weight.requires_grad_(False)
    small = network(4)
    share(small, largest, "stem")
    assert all(parameter.grad is None for parameter in small.parameters())
    assert [parameter.requires_grad for parameter in small.parameters()] == [False, True, True, True]


@pytest.mark.parametrize("name", ["weight", "running_mean"])
def test_what_the_largest_lacks_cannot_be_shared(name):
    largest, small = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Identity()), network(4)
    if name == "running_mean":
        largest[1] = nn.GroupNorm(1, 4)
    with pytest.raises(FamilyError, match=rf"head\.1\.{name} is in a smaller network but not in the largest"):
        share(small, largest, "head")


def test_bind_puts_parameters_and_buffers_at_dotted_names():
    module = nn.Sequential(network(4))
    weight, mean = nn.Parameter(torch.ones(4, 2, 3, 3)), torch.arange(4.0)
    bind(module, "0.0.weight", weight)
    bind(module, "0.1.running_mean", mean)
    assert module[0][0].weight is weight
    assert module[0][1].running_mean is mean
    assert len(list(module.parameters())) == 4
    assert len(list(module.buffers())) == 3
