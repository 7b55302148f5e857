"""ONNX Runtime sessions on the CPU, made one way for measuring, comparing and serving. Free of torch."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from ofa.core.errors import DeviceError

INPUT = "images"
OUTPUT = "logits"


def session(model: Path | bytes, threads: int = 1) -> ort.InferenceSession:
    """A session that runs one operator at a time on `threads` threads, with all graph optimisations.

    Worker threads do not spin between runs: a spinning thread costs energy and disturbs whatever runs next.

    Args:
        model: an ONNX file or its bytes.
        threads: at least 1.

    Raises:
        DeviceError: fewer than 1 thread.
    """
    if threads < 1:
        raise DeviceError(f"threads = {threads} is not allowed; give at least 1")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
