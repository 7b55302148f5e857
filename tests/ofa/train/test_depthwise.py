import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ofa.train.depthwise import DepthwiseStrips, _Strips


def gradients(module, images, strips):
    images = images.clone().requires_grad_()
    module.zero_grad()
    with DepthwiseStrips() if strips else torch.enable_grad():
        outputs = module(images)
    outputs.square().sum().backward()
    return outputs, images.grad, module.weight.grad.clone()


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.sampled_from([(5, 5), (7, 7), (3, 5), (5, 4), (1, 9)]),
    stride=st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    padding=st.sampled_from([(0, 0), (1, 2), (3, 3), (2, 4)]),
    size=st.tuples(st.integers(7, 12), st.integers(9, 13)),
    channels=st.integers(2, 9),
    channels_last=st.booleans(),
    seed=st.integers(0, 100),
)
def test_outputs_are_the_same_and_gradients_to_rounding(kernel, stride, padding, size, channels, channels_last, seed):
    torch.manual_seed(seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    module, images = module.double().to(memory_format=layout), torch.randn(3, channels, *size).double()
    expected = gradients(module, images.contiguous(memory_format=layout), strips=False)
    found = gradients(module, images.contiguous(memory_format=layout), strips=True)
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),  # as fast as it is
        nn.Conv2d(4, 4, 5, padding=2, bias=False),  # not depthwise
        nn.Conv2d(4, 8, 5, padding=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=True),
        nn.Conv2d(4, 4, 5, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 4, 5, padding=4, dilation=2, groups=4, bias=False),
    ],
)
def test_other_convolutions_are_torch_s_own(module, monkeypatch):
    monkeypatch.setattr(_Strips, "apply", None)
    images = torch.randn(2, 4, 9, 9)
    expected, found = gradients(module, images, strips=False), gradients(module, images, strips=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_images_that_need_no_gradient_get_none():
    module = nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False)
    with DepthwiseStrips():
        module(torch.randn(2, 4, 9, 9)).sum().backward()
    assert module.weight.grad.abs().sum() > 0
