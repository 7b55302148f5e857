"""Refuse ONNX models that do more than compute. Free of torch, and of `onnx`, which many phones would have to compile.

Every occurrence of the fields that matter is visited: the check is never less strict than ONNX Runtime's own reader.
"""

from collections.abc import Iterator

from ofa.core.errors import DeviceError

# The kinds of message in a model that matter, each with its fields that hold further ones.
_NESTED = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def check_harmless(onnx: bytes) -> None:
    """Raise DeviceError for a model that could run anything but ONNX operators, read files, or never end."""
    if onnx[4:8] == b"ORTM":  # ONNX Runtime's other format, which it takes instead of ONNX
        raise DeviceError("the body is in ONNX Runtime's own format, which is not allowed; send ONNX")
    try:
        _check("model", memoryview(onnx))
    except ValueError as error:
        raise DeviceError("the body is not an ONNX model; send a file that `onnx.checker` accepts") from error


def _check(kind: str, message: memoryview) -> None:
    nested = _NESTED[kind]
    for number, value in _fields(message):
        match kind, number:
            case "node", 4 if (operator := _text(value)) in _CONTROL_FLOW:
                raise DeviceError(f"operator {operator} is control flow, which may never end; export without it")
            case "node", 7 if (domain := _text(value)) not in _DOMAINS:
                allowed = ", ".join(map(repr, _DOMAINS))
                raise DeviceError(f"operators of domain {domain[:99]!r} are not allowed; use those of {allowed}")
            case "attribute", 6 | 11:
                raise DeviceError("an operator has a graph inside, as control flow has; export without it")
            case "tensor", 13 | 14 if value != 0:
                raise DeviceError("a tensor has external data, which may be any file; save the model as one file")
        if number in nested:
            _check(nested[number], _bytes(value))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a protobuf message; ValueError if it is none."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        value: int | memoryview
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
            case 1 | 2 | 5 as wire:
                size, at = _varint(message, at) if wire == 2 else (8 if wire == 1 else 4, at)
                value, at = message[at : at + size], at + size
            case _:
                raise ValueError("a group")
        if at > end or tag >= 2**32:
            raise ValueError("beyond the end of the message")
        yield tag >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError("a number without an end")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")
