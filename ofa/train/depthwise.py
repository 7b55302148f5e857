"""Depthwise convolutions whose weight gradients are computed in strips of three columns, which CPUs do faster.

On CPUs, torch takes about 25 times as long for the weight gradient of a depthwise kernel of 5 columns as of 3
(oneDNN, channels last). The gradient of a wide kernel is that of narrower ones on shifted images, side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

_COLUMNS = 3
_convolution_backward = torch.ops.aten.convolution_backward


class DepthwiseStrips(TorchFunctionMode):
    """While it is entered, depthwise convolutions on CPUs with kernels wider than 3 compute gradients in strips.

    Outputs are the same to the last bit, gradients to rounding.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, `conv2d` in its own way where that is faster."""
        if func is torch.conv2d and not kwargs and len(args) == 7 and _is_wide_depthwise(*args):
            images, weight, bias, stride, padding, *_ = args
            return _Strips.apply(images, weight, bias, stride, padding)
        return func(*args, **(kwargs or {}))


def _is_wide_depthwise(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    """Return whether a convolution is one of those, and learns."""
    shaped = groups == len(weight) == images.shape[1] > 1 and weight.shape[3] > _COLUMNS and images.dim() == 4
    plain = all(isinstance(pair, tuple) for pair in (stride, padding)) and tuple(dilation) == (1, 1)
    return shaped and plain and bias is None and images.device.type == "cpu" and weight.requires_grad


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: None, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(images, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        images, weight = ctx.saved_tensors
        of_images = None
        if ctx.needs_input_grad[0]:
            of_images, _, _ = _backward(gradient, images, weight, ctx.stride, ctx.padding, [True, False, False])
        strips = []
        for first in range(0, weight.shape[3], _COLUMNS):
            strip = weight[..., first : first + _COLUMNS].contiguous()
            sides = _padding_of(strip, first, images, gradient, weight, ctx.stride, ctx.padding)
            _, of_strip, _ = _backward(gradient, pad(images, sides), strip, ctx.stride, (0, 0), [False, True, False])
            strips.append(of_strip)
        return of_images, torch.cat(strips, dim=3), None, None, None


def _padding_of(
    strip: Tensor, first: int, images: Tensor, gradient: Tensor, weight: Tensor, stride: Any, padding: Any
) -> tuple[int, int, int, int]:
    """Return the pixels left, right, above and below the images that a strip of a kernel sees; negative ones crop."""
    left, top = padding[1] - first, padding[0]
    right = stride[1] * (gradient.shape[3] - 1) + strip.shape[3] - images.shape[3] - left
    bottom = stride[0] * (gradient.shape[2] - 1) + weight.shape[2] - images.shape[2] - top
    return left, right, top, bottom


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Any, padding: Any, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, weight and bias, of those that are wanted."""
    sizes = (None, stride, padding, (1, 1), False, (0, 0), len(weight))
    gradients: tuple[Tensor, Tensor, Tensor] = _convolution_backward(gradient, images, weight, *sizes, wanted)
    return gradients
