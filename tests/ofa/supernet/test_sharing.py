import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ofa.core.errors import FamilyError
from ofa.supernet.rules import Grouped, Kernel, Rule, nested_view
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
def test_a_view_is_leading_slices_and_the_center_of_spatial_dimensions(full, small, slices):
    tensor = torch.randn(full)
    view = nested_view(tensor, small, "weight", spatial=range(2, len(full)))
    assert torch.equal(view, tensor[slices])
    assert view.shape == small
    view.fill_(7.0)
    assert (tensor == 7.0).sum() == view.numel()


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), max_size=4))
def test_without_spatial_dimensions_a_view_is_leading_slices(sizes):
    small, full = [size for size, _ in sizes], [size + more for size, more in sizes]
    tensor = torch.arange(torch.Size(full).numel()).reshape(full)
    assert torch.equal(nested_view(tensor, tuple(small), "weight"), tensor[tuple(map(slice, small))])


def test_a_view_of_a_channels_last_tensor_is_its_slice():
    tensor = torch.randn(8, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    view = Kernel().view(tensor, (3, 2, 3, 3), "weight")
    assert torch.equal(view, tensor[:3, :2, 1:4, 1:4])
    assert view.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("small", [(5, 3), (4, 4), (4,), (4, 3, 1), ()])
def test_a_shape_that_does_not_nest_is_refused(small):
    with pytest.raises(FamilyError, match=r"stem\.weight: shape .* does not nest in the largest network's \(4, 3\)"):
        nested_view(torch.zeros(4, 3), small, "stem.weight")


def conv_norm(channels, kernel=3):
    return nn.Sequential(nn.Conv2d(2, channels, kernel, padding=kernel // 2), nn.BatchNorm2d(channels))


def zero_gradients(module):
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)


def test_a_shared_module_writes_gradients_and_statistics_into_the_largest():
    largest, images = conv_norm(6, 5), torch.randn(3, 2, 8, 8)
    zero_gradients(largest)
    with torch.device("meta"):
        small = conv_norm(4, 3)
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


def test_without_gradients_in_the_largest_views_have_none_and_frozen_parameters_stay_frozen():
    largest = conv_norm(6)
    largest[0].weight.requires_grad_(False)
    small = conv_norm(4)
    share(small, largest, "stem")
    assert all(parameter.grad is None for parameter in small.parameters())
    assert [parameter.requires_grad for parameter in small.parameters()] == [False, True, True, True]


def test_a_parameter_under_two_names_gets_one_view():
    largest, small = nn.Linear(6, 6), nn.Linear(4, 4)
    largest, small = nn.Sequential(largest, largest), nn.Sequential(small, small)
    zero_gradients(largest)
    share(small, largest, "")
    assert small[0].weight is small[1].weight
    assert torch.equal(small[0].weight, largest[0].weight[:4, :4])


@pytest.mark.parametrize("name", ["weight", "running_mean"])
def test_a_parameter_or_statistic_that_the_largest_lacks_is_refused(name):
    largest, small = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Identity()), conv_norm(4)
    if name == "running_mean":
        largest[1] = nn.GroupNorm(1, 4)
    with pytest.raises(FamilyError, match=rf"head\.1\.{name} is in a smaller network but not in the largest"):
        share(small, largest, "head")


def test_bind_puts_parameters_and_buffers_under_dotted_names():
    module = nn.Sequential(conv_norm(4))
    weight, mean = nn.Parameter(torch.ones(4, 2, 3, 3)), torch.arange(4.0)
    bind(module, "0.0.weight", weight)
    bind(module, "0.1.running_mean", mean)
    assert module[0][0].weight is weight
    assert module[0][1].running_mean is mean
    assert len(list(module.parameters())) == 4
    assert len(list(module.buffers())) == 3


def test_only_batch_norm_shares_its_buffers():
    module = conv_norm(4)
    module.register_buffer("index", torch.arange(3))
    assert [name for name, _ in shared_buffers(module)] == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    largest = conv_norm(6)
    share(module, largest, "")
    assert torch.equal(module.index, torch.arange(3))
    assert module[1].running_mean.data_ptr() == largest[1].running_mean.data_ptr()


# Rules


def shared_table(rules, full_shape, shape, path=""):
    """Return modules with one parameter `table` each; the smaller one shares the largest's."""
    largest, small = nn.Module(), nn.Module()
    largest.table, small.table = nn.Parameter(torch.randn(full_shape)), nn.Parameter(torch.zeros(shape))
    zero_gradients(largest)
    share(small, largest, path, rules)
    return small, largest


@pytest.mark.parametrize(
    ("rule", "full", "small", "expected"),
    [
        (Grouped(3), (12, 4), (6, 2), lambda t: t.reshape(3, 4, 4)[:, :2, :2].reshape(6, 2)),
        (Grouped(3), (12,), (6,), lambda t: t.reshape(3, 4)[:, :2].reshape(6)),
        (Grouped(2), (8, 4, 5, 5), (4, 2, 3, 3), lambda t: t[[0, 1, 4, 5], :2, 1:4, 1:4]),
        (Grouped(3), (12, 4), (12, 4), lambda t: t),
        (Rule(), (1, 5, 8), (1, 3, 4), lambda t: t[:, :3, :4]),
        (Kernel(), (6, 5, 7), (4, 3, 3), lambda t: t[:4, :3, 2:5]),
    ],
)
def test_rules_share_values_and_gradients(rule, full, small, expected):
    module, largest = shared_table({"table": rule}, full, small)
    assert torch.equal(module.table, expected(largest.table))
    (gradient,) = torch.autograd.grad(expected(largest.table).pow(3).sum(), [largest.table])
    module.table.pow(3).sum().backward()
    assert torch.equal(largest.table.grad, gradient)


@pytest.mark.parametrize(("full", "small"), [((8, 8, 2), (6, 8, 2)), ((9, 8, 2), (5, 5, 2))])
def test_rows_that_form_no_groups_are_refused_with_both_shapes(full, small):
    with pytest.raises(FamilyError, match=r"^table: the rows of .* do not form 3 equal groups") as caught:
        shared_table({"table": Grouped(3)}, full, small)
    assert str(full) in str(caught.value)
    assert str(small) in str(caught.value)


def test_groups_larger_than_the_largest_networks_are_refused():
    with pytest.raises(FamilyError, match=r"^table: shape \(3, 3, 2\) does not nest"):
        shared_table({"table": Grouped(3)}, (6, 2), (9, 2))


def test_a_convolution_with_a_fixed_number_of_groups_shares_leading_rows_of_each():
    largest, small = nn.Conv2d(8, 12, 5, groups=2), nn.Conv2d(4, 6, 3, groups=2)
    zero_gradients(largest)
    share(small, largest, "")
    expected = largest.weight.reshape(2, 6, 4, 5, 5)[:, :3, :2, 1:4, 1:4].reshape(6, 2, 3, 3)
    assert torch.equal(small.weight, expected)
    assert torch.equal(small.bias, largest.bias.reshape(2, 6)[:, :3].reshape(6))
    small(torch.randn(1, 4, 6, 6)).sum().backward()
    assert largest.weight.grad.count_nonzero() == expected.numel()


@pytest.mark.parametrize(("groups", "fewer"), [(4, 2), (8, 4)])
def test_a_convolution_with_groups_of_a_fixed_width_shares_leading_slices(groups, fewer):
    largest, small = nn.Conv2d(8, 8, 3, groups=groups), nn.Conv2d(4, 4, 3, groups=fewer)
    share(small, largest, "")
    assert torch.equal(small.weight, largest.weight[:4])
    assert type(small) is nn.Conv2d


def test_the_first_pattern_that_matches_the_whole_name_applies():
    table, largest = shared_table({"head.t*": Grouped(2), "*": Rule()}, (6,), (4,), path="head")
    assert torch.equal(table.table, largest.table[[0, 1, 3, 4]])
    table, largest = shared_table({"head.t*": Grouped(2), "*": Rule()}, (6,), (4,), path="neck")
    assert torch.equal(table.table, largest.table[:4])


class Scaled(Rule):
    """Hold a scale beside each parameter."""

    def extras(self, full, name):
        return {"_scale": torch.tensor(float(len(name) + full.dim()))}


def test_extras_are_registered_beside_the_parameters_that_a_pattern_matches():
    largest = conv_norm(4).double()
    add_extras(largest, {"1.*": Scaled()})
    scales = {name: parameter for name, parameter in largest.named_parameters() if name.endswith("_scale")}
    assert {name: scale.item() for name, scale in scales.items()} == {"1.weight_scale": 9, "1.bias_scale": 7}
    assert all(scale.dtype == torch.float64 and scale.requires_grad for scale in scales.values())
