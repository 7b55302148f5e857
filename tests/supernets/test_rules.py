import pytest
import torch
from torch import nn

from ofa.core.errors import FamilyError
from ofa.supernet.sharing import add_extras, share
from supernets.rules import Center, CenterTable, CornerTable, KernelTransform, ResampledPositions


def share_with_gradients(small, largest, rules):
    """Share `largest` with `small`, both with gradients of zero."""
    add_extras(largest, rules)
    for parameter in largest.parameters():
        parameter.grad = torch.zeros_like(parameter)
    share(small, largest, "", rules)


def shared_table(rule, full_shape, shape):
    """Return modules with one parameter `table` each; the smaller one shares the largest's."""
    largest, small = nn.Module(), nn.Module()
    generator = torch.Generator().manual_seed(0)
    largest.table = nn.Parameter(torch.randn(full_shape, generator=generator))
    small.table = nn.Parameter(torch.zeros(shape))
    share_with_gradients(small, largest, {"table": rule})
    return small, largest


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_smaller_kernel_is_the_center_times_learned_matrices(kernel):
    largest, rules = nn.Conv2d(4, 4, 7, groups=4), {"weight": KernelTransform((3, 5, 7))}
    small = nn.Conv2d(3, 3, kernel, groups=3)
    share_with_gradients(small, largest, rules)
    assert torch.equal(largest.weight_7to5, torch.eye(25))
    assert torch.equal(largest.weight_5to3, torch.eye(9))
    generator = torch.Generator().manual_seed(kernel)
    with torch.no_grad():
        for matrix in (largest.weight_7to5, largest.weight_5to3):
            matrix.add_(0.1 * torch.randn(matrix.shape, generator=generator))
    five = (largest.weight[:3, 0, 1:6, 1:6].reshape(3, 25) @ largest.weight_7to5.T).reshape(3, 1, 5, 5)
    three = (five[:, 0, 1:4, 1:4].reshape(3, 9) @ largest.weight_5to3.T).reshape(3, 1, 3, 3)
    expected = five if kernel == 5 else three
    torch.testing.assert_close(small.weight, expected)

    images = torch.randn(2, 3, 9, 9, generator=generator)
    inputs = [largest.weight, largest.weight_7to5, *([largest.weight_5to3] if kernel == 3 else [])]
    loss = nn.functional.conv2d(images, expected, largest.bias[:3], groups=3).square().sum()
    gradients = torch.autograd.grad(loss, inputs)
    small(images).square().sum().backward()
    for parameter, gradient in zip(inputs, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    if kernel == 5:
        assert not largest.weight_5to3.grad.any()


def test_a_transformed_depthwise_kernel_stays_in_channels_last_memory():
    largest = nn.Conv2d(4, 4, 5, groups=4).to(memory_format=torch.channels_last)
    small = nn.Conv2d(4, 4, 3, groups=4)
    share_with_gradients(small, largest, {"weight": KernelTransform((3, 5))})
    assert small.weight.shape == (4, 1, 3, 3)
    assert small.weight.stride()[1] == 1
    assert small.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(small.weight, largest.weight[:, :, 1:4, 1:4])


def test_the_largest_kernel_is_a_plain_view():
    largest, small = nn.Conv2d(4, 4, 5, groups=4), nn.Conv2d(2, 2, 5, groups=2)
    share_with_gradients(small, largest, {"weight": KernelTransform((3, 5))})
    assert small.weight.data_ptr() == largest.weight.data_ptr()
    assert type(small) is nn.Conv2d


def test_a_kernel_transform_for_other_kernels_is_refused():
    with pytest.raises(FamilyError, match=r"weight: the largest kernel is 5, but its transform is for .*\(3, 5, 7\)"):
        add_extras(nn.Conv2d(4, 4, 5), {"weight": KernelTransform((3, 5, 7))})
    with pytest.raises(FamilyError, match=r"kernel 1 is not allowed; its transform is for \(3, 5\)"):
        share_with_gradients(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5), {"weight": KernelTransform((3, 5))})


@pytest.mark.parametrize(
    ("rule", "full", "small", "expected"),
    [
        (Center(2), (7, 7, 4), (3, 3, 2), lambda t: t[2:5, 2:5, :2]),
        (Center(1), (7, 7, 4), (3, 3, 2), lambda t: t[2:5, :3, :2]),
        (CenterTable(), (49, 4), (9, 2), lambda t: t.view(7, 7, 4)[2:5, 2:5, :2].reshape(9, 2)),
        (CenterTable(), (49, 4), (49, 2), lambda t: t[:, :2]),
        (
            CenterTable(extra=3),
            (52, 4),
            (12, 2),
            lambda t: torch.cat([t[:49].view(7, 7, 4)[2:5, 2:5].reshape(9, 4), t[49:]])[:, :2],
        ),
        (CornerTable(), (4, 49), (2, 9), lambda t: t.view(4, 7, 7)[:2, :3, :3].reshape(2, 9)),
        (CornerTable(), (4, 49), (2, 49), lambda t: t[:2]),
        (ResampledPositions(1), (1, 17, 6), (1, 17, 4), lambda t: t[:, :, :4]),
    ],
)
def test_tables_share_values_and_gradients(rule, full, small, expected):
    module, largest = shared_table(rule, full, small)
    assert torch.equal(module.table, expected(largest.table))
    (gradient,) = torch.autograd.grad(expected(largest.table).pow(3).sum(), [largest.table])
    module.table.pow(3).sum().backward()
    assert torch.equal(largest.table.grad, gradient)


@pytest.mark.parametrize(("side", "antialias"), [(2, True), (3, True), (6, False)])
def test_positions_are_resampled_as_an_image_and_the_prefix_is_kept(side, antialias):
    module, largest = shared_table(ResampledPositions(1), (1, 17, 6), (1, 1 + side**2, 4))
    image = largest.table[0, 1:].reshape(4, 4, 6).permute(2, 0, 1)[None]
    resampled = nn.functional.interpolate(image, (side, side), mode="bicubic", antialias=antialias)
    assert torch.equal(module.table[:, 0], largest.table[:, 0, :4])
    torch.testing.assert_close(module.table[0, 1:], resampled[0, :4].permute(1, 2, 0).reshape(side**2, 4))
    module.table.sum().backward()
    assert largest.table.grad[:, :, 4:].abs().max() == 0
    assert largest.table.grad.sum() == pytest.approx(4 * (1 + side**2), rel=1e-5)


@pytest.mark.parametrize(
    ("rule", "full", "small"),
    [
        (CenterTable(), (52, 4), (12, 2)),
        (CenterTable(extra=3), (49, 4), (9, 2)),
        (CenterTable(), (9, 4), (49, 2)),
        (CenterTable(), (8, 8, 2), (5, 5, 2)),
        (CornerTable(), (4, 50), (2, 9)),
        (CornerTable(), (4, 9), (2, 49)),
        (ResampledPositions(1), (8, 8, 2), (5, 5, 2)),
        (ResampledPositions(2), (1, 18, 2), (1, 1, 2)),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_name_and_both_shapes(rule, full, small):
    with pytest.raises(FamilyError, match=r"^table: shape") as caught:
        shared_table(rule, full, small)
    assert str(small) in str(caught.value)
    assert str(full) in str(caught.value)


def test_more_channels_of_positions_than_the_largest_network_has_are_refused():
    with pytest.raises(FamilyError, match=r"table: shape .* does not nest"):
        shared_table(ResampledPositions(1), (1, 17, 2), (1, 5, 4))
