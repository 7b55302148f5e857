import json
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import shared_weights
from export.shared_weights import MAX_GRAPH_BYTES, Cut, assemble, pack
from ofa.core.errors import BundleError

TENSORS = np.arange(100, dtype=np.uint8)


def packed(index, graph=b"abc"):
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    return zlib.compress(text + b"\n" + graph)


def test_a_model_is_the_pieces_one_after_the_other():
    """Counted by hand: rows of ten bytes, of which the cut takes two bytes of three rows, from byte 13."""
    pieces = [b"head\n", Cut(13, (3, 2), (10, 1)), b"\0", Cut(99, (1,), (1,))]
    assert assemble(pack(pieces), TENSORS) == b"head\n" + bytes([13, 14, 23, 24, 33, 34]) + b"\0" + bytes([99])
    assert assemble(pack([]), TENSORS) == b""


cuts = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=4).flatmap(
    lambda dims: st.builds(
        Cut,
        st.integers(0, 99 - sum((size - 1) * stride for size, stride in dims)),
        st.just(tuple(size for size, _ in dims)),
        st.just(tuple(stride for _, stride in dims)),
    )
)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.binary(min_size=1), cuts), max_size=5))
def test_cuts_are_the_bytes_that_loops_would_read(pieces):
    def read(cut, offset, dims):
        if not dims:
            return bytes([TENSORS[offset]])
        (size, stride), *inner = dims
        return b"".join(read(cut, offset + i * stride, inner) for i in range(size))

    expected = [
        piece
        if isinstance(piece, bytes)
        else read(piece, piece.offset, list(zip(piece.sizes, piece.strides, strict=True)))
        for piece in pieces
    ]
    assert assemble(pack(pieces), TENSORS) == b"".join(expected)


HUGE = 10**30
HOSTILE = {
    "nothing": (b"", "cannot be unpacked: truncated"),
    "not compressed": (b"abc", "cannot be unpacked"),
    "truncated": (packed([3])[:-1], "cannot be unpacked: truncated"),
    "followed by other data": (packed([3]) + b"x", "or with other data"),
    "a checksum that is wrong": (packed([3])[:-1] + b"\xff", "cannot be unpacked"),
    "larger than a graph may be": (
        zlib.compress(bytes(MAX_GRAPH_BYTES + 1)),
        "cannot be unpacked: truncated, larger than",
    ),
    "no list": (packed({"a": 1}), "begins with a dict instead of a list"),
    "no JSON": (packed(b"[3"), "cannot be unpacked"),
    "no line": (zlib.compress(b"[3]"), "cannot be unpacked"),
    "a list without an end": (packed(b"[" + 2**20 * b"1,"), "cannot be unpacked: .* without a list"),
    "text that is not UTF-8": (packed(b"\xff"), "cannot be unpacked"),
    "lists in lists": (packed(b"[" * 100_000), "cannot be unpacked"),
    "a number of many digits": (packed(b"[" + b"9" * 10_000 + b"]"), "cannot be unpacked"),
    "more graph than there is": (packed([4]), "a piece of 4 bytes is not in the graph, of which 3 are left"),
    "less graph than there is": (packed([2]), "1 bytes of the graph are not in the list"),
    "no graph": (packed([3, 0]), "a piece of 0 bytes"),
    "a negative piece": (packed([-1, 3]), "a piece of -1 bytes"),
    "a huge piece": (packed([HUGE]), "is not in the graph"),
} | {
    name: (packed([3, entry]), rf"the cut .* is not in the tensors: {reason}")
    for name, (entry, reason) in {
        "a cut that is true": (True, ""),
        "a cut that is null": (None, ""),
        "a cut that is text": ("abc", ""),
        "a cut of two values": ([0, [1]], ""),
        "a cut of four values": ([0, [1], [1], [1]], ""),
        "sizes that are no list": ([0, 1, 1], ""),
        "sizes without strides": ([0, [1, 1], [1]], ""),
        "no sizes": ([0, [], []], ""),
        "a size of text": ([0, ["1"], [1]], ""),
        "a size in an object": ([0, {"1": 1}, [1]], ""),
        "half an offset": ([0.5, [1], [1]], ""),
        "a stride that is true": ([0, [1], [True]], "offset, sizes and strides must be whole"),
        "a size that is not a number": ([0, [float("nan")], [1]], ""),
        "a negative offset": ([-1, [1], [1]], "offset, sizes and strides must be whole"),
        "a negative stride": ([50, [2], [-1]], "offset, sizes and strides must be whole"),
        "a stride of 0": ([0, [2], [0]], "offset, sizes and strides must be whole"),
        "a size of 0": ([0, [0], [1]], "offset, sizes and strides must be whole"),
        "a negative size": ([0, [-1], [1]], "offset, sizes and strides must be whole"),
        "an offset past the end": ([100, [1], [1]], "its last byte is"),
        "a size past the end": ([1, [100], [1]], "its last byte is"),
        "a stride past the end": ([0, [2], [100]], "its last byte is"),
        "dimensions past the end together": ([10, [5, 5], [20, 4]], "its last byte is"),
        "a huge offset": ([HUGE, [1], [1]], "its last byte is"),
        "a huge size": ([0, [HUGE], [1]], "its last byte is"),
        "a huge stride": ([0, [2], [HUGE]], "its last byte is"),
        "too many dimensions": ([0, [1] * 65, [1] * 65], ""),
    }.items()
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_takes_no_memory(name):
    content, message = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=message) as caught:
            assemble(content, TENSORS)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert peak_bytes < 2.1 * MAX_GRAPH_BYTES


def test_cuts_that_overlap_cannot_make_a_model_larger_than_tensors_and_graph(monkeypatch):
    monkeypatch.setattr(shared_weights, "MAX_GRAPH_BYTES", 1000)
    whole = Cut(0, (100,), (1,))
    assert len(assemble(pack([whole] * 11), TENSORS)) == 1100
    for pieces in ([whole] * 12, [Cut(0, (50, 50), (1, 1))]):
        with pytest.raises(
            BundleError, match=r"a model of .* bytes is larger than the 100 bytes of tensors and a graph"
        ):
            assemble(pack(pieces), TENSORS)
    with pytest.raises(BundleError, match="too large to share weights"):
        pack([bytes(1000)])


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_content_is_a_model_or_a_bundle_error(text, graph):
    for content in (text, packed(text, graph)):
        with suppress(BundleError):
            assert isinstance(assemble(content, TENSORS), bytes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.lists(json_values, max_size=4))
def test_any_index_is_a_model_or_a_bundle_error(index):
    with suppress(BundleError):
        assert len(assemble(packed(index), TENSORS)) >= 3
