"""Networks as ONNX files, and the proof that such a file computes what the PyTorch network computes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from export.session import INPUT, OUTPUT, session
from ofa.core.errors import ExportError
from ofa.core.files import replacing

_OPSET = 18  # pinned, so that a newer torch does not change the files


@dataclass(frozen=True)
class Parity:
    """How far an ONNX model is from its PyTorch network on some images.

    Attributes:
        max_abs_diff: largest absolute difference of any logit; NaN if either side gave NaN or infinity.
        same_top1: fraction of the images whose highest logit is the same class.
        n_images: how many images were compared.
    """

    max_abs_diff: float
    same_top1: float
    n_images: int


def to_onnx(network: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Writes a network in eval mode as an ONNX file: "images" `[batch, *input_shape]` to "logits" `[batch, ...]`.

    Any module from one tensor to one tensor will do, also a single block. The network's own mode is left
    as it was. The exporter is the one based on TorchScript: measured on the same networks it takes 0.02 s
    for a block and 0.4 s for MobileNetV3 where the one based on torch.export takes 0.74 s and 6 s, and a
    latency table has hundreds of blocks.

    Args:
        network: float32, in any memory format.
        input_shape: without the batch dimension, which may have any size in the file.
        path: overwritten; see `export_checked` for a file that is whole and compared.

    Raises:
        ExportError: an operation that the exporter does not know, or a file that ONNX's checker refuses.
    """
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    images = torch.zeros((2, *input_shape), device=device)
    try:
        with _eval_mode(network), torch.no_grad():
            _export(network, images, path)
        onnx.checker.check_model(onnx.load(path))
    except (torch.onnx.OnnxExporterError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"{type(network).__name__} with input {tuple(input_shape)} cannot become ONNX: {error}; "
            "write the block with operations that ONNX has"
        ) from error


def parity(model: ort.InferenceSession, network: nn.Module, batches: Iterable[Tensor]) -> Parity:
    """Compares an ONNX model with the network it came from.

    Args:
        model: see `export.session.session`.
        network: run in eval mode; its own mode is left as it was.
        batches: preprocessed float images, each `[batch, channels, height, width]`.

    Raises:
        ExportError: no images, or outputs of different shapes.
    """
    parameter = next(network.parameters(), None)
    diffs, same = [], []
    for images in batches:
        with _eval_mode(network), torch.inference_mode():
            wanted = network(images if parameter is None else images.to(parameter.device)).cpu().numpy()
        (got,) = model.run([OUTPUT], {INPUT: images.cpu().contiguous().numpy()})
        if got.shape != wanted.shape:
            raise ExportError(
                f"the ONNX model gives shape {got.shape}, PyTorch {wanted.shape}; export this network anew"
            )
        finite = np.isfinite(got).all() and np.isfinite(wanted).all()
        diffs.append(float(np.abs(got - wanted).max(initial=0.0)) if finite else float("nan"))
        same.append(got.argmax(axis=1) == wanted.argmax(axis=1))
    n_images = sum(len(batch) for batch in same)
    if not n_images:
        raise ExportError("no images to compare the ONNX model with PyTorch on; give at least one batch")
    return Parity(float(np.max(diffs)), float(np.mean(np.concatenate(same))), n_images)


def export_checked(
    network: nn.Module,
    input_shape: tuple[int, ...],
    batches: Iterable[Tensor],
    path: Path,
    tolerance: float = 1e-4,
) -> Parity:
    """Exports a network and keeps the file only if it computes the same on the images.

    A file that is already at `path` is removed first, so that nothing stale is there after a refusal.

    Args:
        network: the extracted network.
        input_shape: channels, height and width.
        batches: preprocessed real images, each `[batch, channels, height, width]`.
        path: appears whole or not at all.
        tolerance: the largest absolute difference of a logit that is let through.

    Raises:
        ExportError: a logit differs by more than `tolerance`, or the top-1 class of any image differs.
    """
    path.unlink(missing_ok=True)
    with replacing(path) as temporary:
        to_onnx(network, input_shape, temporary)
        result = parity(session(temporary), network, batches)
        if not (result.max_abs_diff <= tolerance and result.same_top1 == 1.0):
            raise ExportError(
                f"{path.name}: ONNX differs from PyTorch by up to {result.max_abs_diff:.3g} (allowed: {tolerance:.3g}) "
                f"and agrees on {result.same_top1:.2%} of the top-1 classes (wanted: all of {result.n_images}); "
                "no file was written. Check that the network is trained and float32, or raise the tolerance"
            )
    return result


def _export(network: nn.Module, images: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)  # sizes are fixed; results are compared after
        torch.onnx.export(
            network,
            (images,),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
