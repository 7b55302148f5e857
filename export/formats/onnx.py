"""Networks as ONNX files that are known to compute what PyTorch computes."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from export.errors import check_choice, check_number, one_line
from export.formats.precision import PRECISIONS
from export.session import INPUT, OUTPUT, run, session
from ofa.core.errors import ExportError
from ofa.core.files import replacing
from ofa.devices.format import Logits

_FLOAT16_TOLERANCE = 0.01
"""Largest difference of a logit allowed in float16, relative to the largest logit."""
_TIE = 1e-5
"""Logits as near as this to each other, relative to the largest, are equal: float32 rounding decides which is first."""
EXPORTING = Lock()
"""Held by exporters: torch's, warning filters and the mode of a network are global."""


@dataclass(frozen=True)
class Parity:
    """How an ONNX model differs from its PyTorch network on some images.

    Attributes:
        max_abs_diff: largest absolute difference of a logit; NaN if either side has NaN or infinity.
        max_abs_logit: largest absolute logit of PyTorch.
        same_top1: fraction of the images for which both give the same class; of classes that PyTorch has equal, to
            rounding, either counts.
        n_images: number of images compared.
    """

    max_abs_diff: float
    max_abs_logit: float
    same_top1: float
    n_images: int


def export_onnx(
    network: nn.Module,
    input_shape: tuple[int, ...],
    path: Path | str,
    *,
    images: Iterable[Tensor] | None = None,
    tolerance: float = 1e-4,
    batch: int | None = None,
    opset: int = 18,
    metadata: Mapping[str, str] | None = None,
) -> Parity | None:
    """Write a network in eval mode as an ONNX file, from "images" `[batch, *input_shape]` to "logits" `[batch, ...]`.

    The file appears whole or not at all, and only if ONNX Runtime runs it; a file that is at `path` already is removed
    first. The network's own mode is left as it was.

    The weights in the file are the network's parameters and buffers, unchanged and under their own names, so those of
    two subnets are cuts of the same tensors. Folding BatchNorm and constants is left to the runtime that loads it.

    Args:
        network: any float32 module from one tensor to one tensor, also a single block.
        input_shape: shape of the input without the batch dimension: channels, height, width.
        path: of the ONNX file.
        images: preprocessed images, each `[batch, *input_shape]`, on which the file must compute the same as PyTorch.
        tolerance: largest absolute difference of a logit allowed on `images`.
        batch: fixed number of images in one run; by default, the file takes any.
        opset: version of ONNX's operators, 13 to 20; older runtimes require lower ones.
        metadata: texts to keep in the file, by name, such as `{"labels": '["cat", "dog"]'}`; ONNX Runtime gives them
            back as `session.get_modelmeta().custom_metadata_map`.

    Returns:
        The comparison on `images`; None without images.

    Raises:
        ExportError: an option is not allowed, the network cannot be exported, has a fixed batch size, differs from
            PyTorch on `images` by more than `tolerance` or in any top-1 class, or `images` is empty.
        DeviceError: ONNX Runtime cannot load the file.
    """
    path, metadata = Path(path), dict(metadata or {})
    check_number("tolerance", tolerance, 0, float("inf"), kind=ExportError)
    check_options(batch, opset)
    _check_metadata(metadata)
    path.unlink(missing_ok=True)
    with replacing(path) as temporary:
        with EXPORTING, eval_mode(network), torch.no_grad():
            _write(network, input_shape, temporary, batch=batch, opset=opset)
        _add_metadata(temporary, metadata)
        model = session(temporary)
        if batch is None:
            _check_batch_size(model, network, input_shape)
        else:
            run(model, np.zeros((batch, *input_shape), dtype=np.float32))
        if images is None:
            return None
        parity = compare(partial(run, model), network, images)
        if not (parity.max_abs_diff <= tolerance and parity.same_top1 == 1.0):
            raise ExportError(
                f"{path.name}: ONNX differs from PyTorch by up to {parity.max_abs_diff:.3g} (allowed: {tolerance:.3g}) "
                f"and gives the same class for {parity.same_top1:.2%} of {parity.n_images} images; remove randomness "
                "and control flow that depends on data, train the network, or raise the tolerance"
            )
    return parity


def compare(model: Logits, network: nn.Module, images: Iterable[Tensor]) -> Parity:
    """Compare a loaded file with the network it was written from, in eval mode, on batches of images."""
    parameter = next(network.parameters(), None)
    diffs, sizes, same = [], [], []
    for batch in images:
        actual = model(batch.cpu().contiguous().numpy())
        with eval_mode(network), torch.inference_mode():
            expected = network(batch if parameter is None else batch.to(parameter.device)).cpu().numpy()
        if actual.shape != expected.shape:
            raise ExportError(f"ONNX returns shape {actual.shape}, PyTorch {expected.shape}; export the network again")
        finite = np.isfinite(actual).all() and np.isfinite(expected).all()
        diffs.append(float(np.abs(actual - expected).max(initial=0.0)) if finite else float("nan"))
        sizes.append(float(np.abs(expected).max(initial=0.0)))
        same.append(_same_top1(actual, expected))
    n_images = sum(map(len, same))
    if not n_images:
        raise ExportError("no images to compare the ONNX model with PyTorch on; give at least one batch")
    return Parity(float(np.max(diffs)), float(np.max(sizes)), float(np.mean(np.concatenate(same))), n_images)


def _same_top1(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.bool_]:
    best, size = expected.max(axis=1), np.abs(expected).max(axis=1)
    of_actual = np.take_along_axis(expected, actual.argmax(axis=1)[:, None], axis=1)[:, 0]
    same: NDArray[np.bool_] = of_actual >= best - _TIE * size
    return same


def check_parity(name: str, parity: Parity, precision: str) -> None:
    """Check the comparison of a converted file with its PyTorch network, as far as its precision allows.

    In float16, logits may differ by 1% of the largest. Integers must give finite logits; what they cost is in
    `parity.same_top1` and in the accuracy of the file.

    Args:
        name: of the file, for the error.
        parity: of `compare`.
        precision: "float16", "int8_dynamic" or "int8_static"; `export_onnx` checks float32 files.

    Raises:
        ExportError: the file differs by more than that.
    """
    check_choice("precision", precision, PRECISIONS[1:])
    limit = _FLOAT16_TOLERANCE * parity.max_abs_logit if precision == "float16" else float("inf")
    if not parity.max_abs_diff <= limit:  # NaN as well
        difference = f"{parity.max_abs_diff:.3g} in logits up to {parity.max_abs_logit:.3g}"
        raise ExportError(f"{name}: {precision} differs from PyTorch by up to {difference}; use float32")


def check_options(batch: int | None, opset: int) -> None:
    """Raise ExportError for a fixed batch or an opset that `export_onnx` does not write."""
    if batch is not None:
        check_number("batch", batch, 1, 4096, whole=True, kind=ExportError)
    check_number("opset", opset, 13, 20, whole=True, kind=ExportError)


def _check_metadata(metadata: dict[str, str]) -> None:
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ExportError(f"metadata = {metadata!r:.60} is not allowed; give names and values that are strings")


def _write(network: nn.Module, input_shape: tuple[int, ...], path: Path, *, batch: int | None, opset: int) -> None:
    parameter = next(network.parameters(), None)
    hook = network.register_forward_hook(_check_output)
    what = f"{type(network).__name__} with input {tuple(input_shape)} cannot be exported to ONNX"
    try:
        with one_line(ExportError, what, _advice), _quiet():
            torch.onnx.export(
                network,
                (torch.zeros((batch or 2, *input_shape), device=None if parameter is None else parameter.device),),
                path,
                dynamo=False,  # 15 to 40 times as fast, and a latency table has hundreds of blocks
                do_constant_folding=False,  # BatchNorm included
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if batch is None else None,
            )
            onnx.checker.check_model(onnx.load(path))
    finally:
        hook.remove()


def _add_metadata(path: Path, metadata: dict[str, str]) -> None:
    if metadata:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)


def _check_output(network: nn.Module, arguments: tuple[Tensor], output: Any) -> None:
    """Refuse an output that is not one float32 tensor `[batch, ...]`; a forward hook."""
    name, n_images = type(network).__name__, int(arguments[0].shape[0])
    if not isinstance(output, Tensor):
        raise ExportError(f"{name} returns a {type(output).__name__}; return one tensor, the logits [batch, classes]")
    shape = [int(size) for size in output.shape]
    if output.dtype != torch.float32 or len(shape) < 2 or shape[0] != n_images:
        actual = f"{output.dtype} {shape} for {n_images} images"
        raise ExportError(f"{name} returns {actual}; return float32 logits [batch, classes]")


def _check_batch_size(model: ort.InferenceSession, network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Run the model on one image: it was exported with two."""
    what = f"the ONNX model of {type(network).__name__}"
    advice = (
        "int(), len(), .item() and .numpy() fix a value when a network is exported: write x.shape[0] or -1 for the "
        "batch size, and compute with tensors"
    )
    with one_line(ExportError, f"{what} does not run on one image", advice):
        (logits,) = model.run([OUTPUT], {INPUT: np.zeros((1, *input_shape), dtype=np.float32)})
    if logits.shape[0] != 1:
        raise ExportError(f"{what} has a fixed batch size: for one image it returns shape {logits.shape}; {advice}")


def _advice(message: str) -> str:
    if "output size that are not factor" in message:
        return "pool to a size that divides the input's height and width, such as adaptive_avg_pool2d(x, 1)"
    if operator := re.search(r"\w+::\w+", message):
        return f"replace {operator[0]} by operators that ONNX has"
    return "it must be float32 and map one tensor of images to one tensor of logits, with operators that ONNX has"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings, and the whole graph that torch would print to standard output when an export fails."""
    with warnings.catch_warnings(), patch.object(torch._C, "_jit_onnx_log", lambda *_: None, create=True):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)  # sizes are fixed; results are compared after
        yield


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and all its modules back into theirs afterwards."""
    training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
