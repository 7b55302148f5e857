"""ONNX Runtime on the CPU, set up in one way for measuring, comparing and serving. Free of torch."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.errors import check_number, one_line
from ofa.core.errors import DeviceError

INPUT, OUTPUT = "images", "logits"


def session(model: Path | bytes, threads: int = 1) -> ort.InferenceSession:
    """Return a session for an ONNX file or its content; DeviceError if ONNX Runtime cannot load it.

    It runs one operator at a time on `threads` threads, with all graph optimizations. Threads do not spin between
    runs: a spinning thread costs energy and disturbs whatever runs next.
    """
    check_number("threads", threads, 1, 1024, whole=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # errors are raised; they need not be printed as well
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = model if isinstance(model, bytes) else str(model)
    with one_line(DeviceError, "ONNX Runtime cannot load the model", "use float32 and operators that it implements"):
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def image_shape(model: ort.InferenceSession) -> tuple[int, ...]:
    """Return the shape of one image that a model takes; DeviceError if its inputs are others than `run` gives."""
    inputs = [(one.name, one.type, one.shape) for one in model.get_inputs()]
    shape = tuple(inputs[0][2][1:]) if inputs else ()
    sizes_known = shape and all(isinstance(size, int) and size >= 1 for size in shape)
    if [(name, kind) for name, kind, _ in inputs] != [(INPUT, "tensor(float)")] or not sizes_known:
        listed = ", ".join(f"{name!r:.40} {kind} {sizes!r:.60}" for name, kind, sizes in inputs) or "nothing"
        wanted = f"one tensor(float) named {INPUT!r}, whose sizes but the first are fixed"
        raise DeviceError(f"the model takes {listed}, which is not {wanted}; export it so")
    return shape


def run(model: ort.InferenceSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits `[n, classes]` of images `[n, channels, height, width]`; DeviceError if the model fails.

    A model with a fixed batch runs as often as necessary; zeros fill its last batch.
    """
    size, n = model.get_inputs()[0].shape[0], len(images)
    if isinstance(size, int) and n != size:
        padded = np.concatenate([images, np.zeros((-n % size, *images.shape[1:]), dtype=images.dtype)])
        return np.concatenate([run(model, batch) for batch in np.split(padded, len(padded) // size)])[:n]
    with one_line(DeviceError, f"ONNX Runtime cannot run the model on {images.shape}", "check the shape of the images"):
        logits: NDArray[np.float32] = model.run([OUTPUT], {INPUT: images})[0]
    return logits
