import pytest
import torch
from torch import nn

from ofa.core.errors import FamilyError
from ofa.supernet.rules import CenterTable, Grouped, Kernel, KernelTransform, ResampledPositions, Rule, nested_view
from ofa.supernet.sharing import add_extras, bind, share, shared_buffers


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
def test_views_are_leading_slices_and_the_center(full, small, slices):
    tensor = torch.randn(full)
    view = nested_view(tensor, small, "weight", spatial=range(2, len(full)))
    assert torch.equal(view, tensor[slices])
    assert view.shape == small
    assert torch.equal(nested_view(tensor, small, "weight"), tensor[tuple(slice(n) for n in small)])
    view.fill_(7.0)
    assert (tensor == 7.0).sum() == view.numel()


def test_a_view_of_a_channels_last_tensor_is_its_slice():
    tensor = torch.randn(8, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    view = Kernel().view(tensor, (3, 2, 3, 3), "weight")
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
        assert torch.equal(parameter.grad, Kernel().view(largest.get_parameter(name).grad, parameter.shape, name))
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


def shared(small, largest, rules=None):
    """The small module with its parameters in the largest, and gradients that start at zero."""
    add_extras(largest, rules or {})
    for parameter in largest.parameters():
        parameter.grad = torch.zeros_like(parameter)
    share(small, largest, "", rules)
    return small


def gradients_of(loss, tensors):
    return torch.autograd.grad(loss, tensors)


def test_a_smaller_kernel_is_the_center_times_learned_matrices():
    largest = nn.Conv2d(4, 4, 7, groups=4)
    rules = {"weight": KernelTransform((3, 5, 7))}
    for kernel in (3, 5):
        add_extras(largest, rules)
        assert torch.equal(largest.weight_7to5, torch.eye(25))
        generator = torch.Generator().manual_seed(kernel)
        with torch.no_grad():
            for matrix in (largest.weight_7to5, largest.weight_5to3):
                matrix.add_(0.1 * torch.randn(matrix.shape, generator=generator))
        for parameter in largest.parameters():
            parameter.grad = torch.zeros_like(parameter)
        small = nn.Conv2d(3, 3, kernel, groups=3)
        share(small, largest, "", rules)
        five = (largest.weight[:3, 0, 1:6, 1:6].reshape(3, 25) @ largest.weight_7to5.T).reshape(3, 1, 5, 5)
        three = (five[:, 0, 1:4, 1:4].reshape(3, 9) @ largest.weight_5to3.T).reshape(3, 1, 3, 3)
        expected = five if kernel == 5 else three
        torch.testing.assert_close(small.weight, expected)
        images = torch.randn(2, 3, 9, 9, generator=generator)
        inputs = [largest.weight, largest.weight_7to5, *([largest.weight_5to3] if kernel == 3 else [])]
        out = nn.functional.conv2d(images, expected, largest.bias[:3], groups=3)
        wanted = gradients_of(out.square().sum(), inputs)
        small(images).square().sum().backward()
        for parameter, gradient in zip(inputs, wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
        del largest.weight_7to5, largest.weight_5to3


def test_the_largest_kernel_is_a_plain_view():
    largest, rules = nn.Conv2d(4, 4, 5, groups=4), {"weight": KernelTransform((3, 5))}
    small = shared(nn.Conv2d(2, 2, 5, groups=2), largest, rules)
    assert small.weight.data_ptr() == largest.weight.data_ptr()
    assert type(small) is nn.Conv2d


def test_a_kernel_transform_that_does_not_fit_is_named():
    with pytest.raises(FamilyError, match=r"weight: a kernel transform of \(3, 5, 7\) wants a largest kernel of 7"):
        add_extras(nn.Conv2d(4, 4, 5), {"weight": KernelTransform((3, 5, 7))})
    with pytest.raises(FamilyError, match="kernel 1 is not one of its transform's"):
        shared(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5), {"weight": KernelTransform((3, 5))})


@pytest.mark.parametrize(
    ("rule", "full", "small", "expected"),
    [
        (Grouped(3), (12, 4), (6, 2), lambda t: t.reshape(3, 4, 4)[:, :2, :2].reshape(6, 2)),
        (Grouped(3), (12,), (6,), lambda t: t.reshape(3, 4)[:, :2].reshape(6)),
        (CenterTable(), (49, 4), (9, 2), lambda t: t.reshape(7, 7, 4)[2:5, 2:5, :2].reshape(9, 2)),
        (Rule(), (1, 5, 8), (1, 3, 4), lambda t: t[:, :3, :4]),
    ],
)
def test_rules_share_values_and_gradients(rule, full, small, expected):
    largest, module = nn.Module(), nn.Module()
    largest.table, module.table = nn.Parameter(torch.randn(full)), nn.Parameter(torch.zeros(small))
    shared(module, largest, {"table": rule})
    assert torch.equal(module.table, expected(largest.table))
    wanted = gradients_of(expected(largest.table).pow(3).sum(), [largest.table])[0]
    module.table.pow(3).sum().backward()
    assert torch.equal(largest.table.grad, wanted)


@pytest.mark.parametrize("rule", [Grouped(3), CenterTable(), ResampledPositions(1)])
def test_a_rule_that_does_not_fit_names_the_parameter_and_both_shapes(rule):
    largest, module = nn.Module(), nn.Module()
    largest.table, module.table = nn.Parameter(torch.randn(8, 8, 2)), nn.Parameter(torch.zeros(5, 5, 2))
    with pytest.raises(FamilyError, match=r"table: .*\(5, 5, 2\).*\(8, 8, 2\)"):
        shared(module, largest, {"table": rule})


def test_positions_are_resampled_and_the_class_token_kept():
    largest, module = nn.Module(), nn.Module()
    largest.pos, module.pos = nn.Parameter(torch.randn(1, 17, 6)), nn.Parameter(torch.zeros(1, 5, 4))
    shared(module, largest, {"pos": ResampledPositions(1)})
    assert module.pos.shape == (1, 5, 4)
    assert torch.equal(module.pos[:, 0], largest.pos[:, 0, :4])
    flat = nn.Parameter(torch.full((1, 17, 6), 2.5))
    with torch.no_grad():
        largest.pos.copy_(flat)
    torch.testing.assert_close(module.pos, torch.full((1, 5, 4), 2.5))
    module.pos.sum().backward()
    assert largest.pos.grad[:, :, 4:].abs().max() == 0
    assert largest.pos.grad[:, :, :4].sum() == pytest.approx(20, rel=1e-5)


def test_groups_of_a_fixed_number_are_sliced_each():
    largest = nn.Conv2d(8, 12, 5, groups=2)
    small = shared(nn.Conv2d(4, 6, 3, groups=2), largest)
    expected = largest.weight.reshape(2, 6, 4, 5, 5)[:, :3, :2, 1:4, 1:4].reshape(6, 2, 3, 3)
    assert torch.equal(small.weight, expected)
    assert torch.equal(small.bias, largest.bias.reshape(2, 6)[:, :3].reshape(6))
    small(torch.randn(1, 4, 6, 6)).sum().backward()
    assert largest.weight.grad.count_nonzero() == expected.numel()


def test_groups_of_a_fixed_width_are_leading_slices():
    largest = nn.Conv2d(8, 8, 3, groups=4)
    small = shared(nn.Conv2d(4, 4, 3, groups=2), largest)
    assert torch.equal(small.weight, largest.weight[:4])


def test_only_batch_norm_shares_its_buffers():
    module = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4))
    module.register_buffer("index", torch.arange(3))
    assert [name for name, _ in shared_buffers(module)] == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    largest = nn.Sequential(nn.Conv2d(2, 6, 1), nn.BatchNorm2d(6))
    share(module, largest, "")
    assert torch.equal(module.index, torch.arange(3))
    assert module[1].running_mean.data_ptr() == largest[1].running_mean.data_ptr()


def test_the_first_pattern_that_fits_holds():
    largest, module = nn.Module(), nn.Module()
    largest.a, module.a = nn.Parameter(torch.arange(6.0)), nn.Parameter(torch.zeros(4))
    shared(module, largest, {"a": Grouped(2), "*": Rule()})
    assert module.a.tolist() == [0, 1, 3, 4]
