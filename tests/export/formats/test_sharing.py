from hashlib import sha256

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

import ofa
from export.formats.onnx import export_onnx
from export.formats.precision import PRECISIONS, convert
from export.formats.sharing import share
from export.preprocess import Preprocess
from export.shared_weights import assemble

QUICK = ("hybrid_small", "small_mobilenet_v3")
FAMILIES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ofa.list_families()]


def model(**tensors):
    """An ONNX file with some initializers."""
    initializers = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    return onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], [], initializers)).SerializeToString()


def tensors_bytes(*models):
    """Check that the models are put together to the last byte, and return the number of bytes of stored tensors."""
    tensors, files = share(models)
    assert [assemble(file, np.frombuffer(tensors, np.uint8)) for file in files] == list(models)
    return len(tensors)


FULL = np.random.default_rng(0).standard_normal((24, 16, 7, 7)).astype(np.float32)
PARTS = {
    "leading slices": lambda: [FULL, FULL[:8], FULL[:, :4], FULL[:12, :15]],
    "the center of kernels": lambda: [FULL, FULL[..., 1:-1, 1:-1], FULL[:7, :, 2:-2, 2:-2]],
    "wide with small kernels and narrow with large ones": lambda: [FULL[:, :, 1:6, 1:6], FULL[:20]],
    "three groups of rows": lambda: [FULL, np.concatenate([FULL[:5], FULL[8:13], FULL[16:21]])],
    "32 groups of rows": lambda: [
        FULL.reshape(32, -1, 7).reshape(-1, 7),
        FULL.reshape(32, -1, 7)[:, :50].reshape(-1, 7),
    ],
    "vectors": lambda: [FULL[..., 0, 0].ravel(), FULL[:20, :, 0, 0].ravel()],
    "the center of a table": lambda: [FULL[0, :15, :, 0], FULL[0, 2:13, :, 0]],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_one_tensor_are_stored_once(name, dtype):
    parts = [np.ascontiguousarray((100 * part).astype(dtype)) for part in PARTS[name]()]
    box = np.max([part.shape for part in parts], axis=0)
    assert tensors_bytes(*(model(weight=part) for part in parts)) == np.prod(box) * parts[0].itemsize


def test_the_box_holds_no_more_than_the_levels_need():
    """Counted by hand: leading slices of 10 by 12 and 8 by 16 values are in a box of 10 by 16."""
    wide, tall = FULL[:8, :16, 0, 0], FULL[:10, :12, 0, 0]
    assert tensors_bytes(model(weight=wide), model(weight=tall)) == 4 * 10 * 16


def test_a_box_that_is_larger_than_its_parts_is_not_stored():
    full = FULL[:10, :10].reshape(70, 70)
    parts = full[:, :2], full[:2]
    assert tensors_bytes(*(model(weight=part) for part in parts)) == 2 * 4 * 140


def test_what_differs_is_stored_for_each_level_and_the_others_share():
    other = FULL[:16].copy()
    other[3, 3, 3, 3] += 1
    models = [model(weight=FULL), model(weight=other), model(weight=FULL[:8]), model(weight=other[:4])]
    assert tensors_bytes(*models) == FULL.nbytes + other.nbytes
    assert tensors_bytes(models[0], models[1]) == FULL.nbytes + other.nbytes


def test_values_are_compared_bit_by_bit():
    for one, other in ((0.0, -0.0), (float("nan"), float("nan"))):
        first, second = (np.full(20, value, np.float32) for value in (one, other))
        assert tensors_bytes(model(weight=first), model(weight=second)) == (80 if one != one else 160)


def test_names_types_and_numbers_of_dimensions_are_not_mixed():
    ints = FULL[0, 0].view(np.int16)
    models = [model(a=FULL[0, 0]), model(b=FULL[0, 0]), model(a=ints), model(a=FULL[0, :1])]
    assert tensors_bytes(*models) == 4 * FULL[0, 0].nbytes


def test_small_tensors_stay_in_the_graph():
    assert tensors_bytes(model(weight=FULL[0, 0, 0])) == 0


def test_one_level_and_none_are_stored_too():
    assert tensors_bytes(model(weight=FULL)) == FULL.nbytes
    assert share([]) == (b"", [])


def test_tensors_with_equal_bytes_are_found_where_they_are():
    ones = np.ones(50, np.float32)
    assert tensors_bytes(model(a=ones, b=ones), model(b=ones, a=ones)) == 2 * ones.nbytes


def test_a_file_that_is_cut_off_or_not_onnx_is_stored_whole():
    content = model(weight=FULL)
    assert tensors_bytes(content[:-50], b"", b"not a model") == 0


def test_levels_of_other_precisions_are_put_together_too(network, images, tmp_path):
    path, models = tmp_path / "model.onnx", []
    for precision in PRECISIONS:
        export_onnx(network, (1, 28, 28), path)
        convert(path, precision, Preprocess(28, 1, (0.3,), (0.4,))(images))
        models.append(path.read_bytes())
    assert tensors_bytes(*models, models[0]) == tensors_bytes(*models) < sum(map(len, models))


shapes = st.integers(1, 3).flatmap(
    lambda n_dims: st.lists(st.tuples(*[st.integers(1, 9)] * n_dims), min_size=1, max_size=4)
)


@settings(max_examples=60)
@given(shapes, st.integers(0, 3))
def test_any_slices_are_put_together_again(parts, n_values):
    """Few different values, so that unrelated slices agree by chance."""
    full = np.random.default_rng(n_values).integers(0, n_values + 1, size=(9,) * len(parts[0])).astype(np.float64)
    slices = [np.ascontiguousarray(full[tuple(map(slice, part))]) for part in parts]
    box = np.prod(np.max(parts, axis=0)) * 8
    stored = tensors_bytes(*(model(weight=part, other=2 * part) for part in slices))
    assert stored <= max(2 * box, sum(2 * part.nbytes for part in slices))


def level_files(name, folder):
    """Write the largest, a random and the smallest subnet of a supernet as ONNX files."""
    family = ofa.create_family(name, num_classes=10)
    space, supernet = family.space, ofa.Supernet(family)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.01 * torch.rand_like(parameter))  # zeros and ones would agree by chance
    files = []
    for i, arch in enumerate(
        (space.largest, space.decode(space.sample(1, np.random.default_rng(1))[0]), space.smallest)
    ):
        network = supernet.extract(arch).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # as if re-estimated
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
        files.append(folder / f"{i}.onnx")
        export_onnx(network, family.input_shape(arch), files[-1])
    return files


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_of_every_family_cost_little_more_than_the_largest(name, tmp_path):
    models = [path.read_bytes() for path in level_files(name, tmp_path)]
    tensors, files = share(models)
    assert len(tensors) + sum(map(len, files)) < 1.1 * len(models[0])
    digests = [sha256(model).digest() for model in models]
    assert [sha256(assemble(file, np.frombuffer(tensors, np.uint8))).digest() for file in files] == digests
