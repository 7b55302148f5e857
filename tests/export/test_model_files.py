from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch

from export.model_files import FILE_KINDS, load_model
from ofa.core.errors import DeviceError
from ofa.devices.format import create_format
from ofa.devices.registry import device_formats


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((5, 1, 28, 28), dtype=np.float32)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_logits_are_those_of_pytorch_for_any_batch(network, other_format, other_file, images, n, threads):
    with torch.no_grad():
        expected = network(torch.from_numpy(images[:n])).numpy()
    given = images[:n].copy()
    logits = load_model(other_format.name, other_file, threads)(given)
    assert logits.dtype == np.float32
    assert np.array_equal(given, images[:n])
    assert np.abs(expected).max() > 0.1
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_format_loads_its_own_files(network, other_format, other_file, images):
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.abs(other_format.load(other_file)(images) - expected).max() < 1e-5 * np.abs(expected).max()


def test_ranges_of_8_bits_hold_the_largest_values(network, other_format, images, tmp_path):
    if "int8_static" not in other_format.precisions:
        pytest.skip("it has no 8 bits")
    images[3] *= 8.0
    path = tmp_path / f"model{other_format.suffix}"
    other_format.write(network, (1, 28, 28), path, precision="int8_static", images=images, metadata={})
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.abs(other_format.load(path)(images) - expected).max() < 0.05 * np.abs(expected).max()


def test_threads_that_share_a_model_get_the_logits_of_their_own_images(other_format, other_file, images):
    model = load_model(other_format.name, other_file)
    expected = [model(image[None]) for image in images]
    with ThreadPoolExecutor(4) as pool:
        numbers = list(range(5)) * 20
        found = list(pool.map(lambda i: model(images[i][None]), numbers))
    assert all(np.array_equal(logits, expected[i]) for i, logits in zip(numbers, found, strict=True))


def test_a_model_outlives_its_file_and_other_models(other_format, other_file, images, tmp_path):
    copy = tmp_path / other_file.name
    copy.write_bytes(other_file.read_bytes())
    model = load_model(other_format.name, copy)
    copy.unlink()
    others = [load_model(other_format.name, other_file) for _ in range(3)]
    expected = model(images)
    del others
    assert np.array_equal(model(images), expected)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(10_000)])
def test_a_file_of_something_else_is_one_error(other_format, content, tmp_path):
    path = tmp_path / f"model{other_format.suffix}"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=r" cannot load model\.\w+: .*; export the network again"):
        load_model(other_format.name, path)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 27, 28), (1, 3, 28, 28)])
def test_images_of_another_shape_are_one_error(other_format, other_file, shape):
    with pytest.raises(DeviceError, match=r"the model takes images \['n', 1, 28, 28\], these are \[1, "):
        load_model(other_format.name, other_file)(np.zeros(shape, np.float32))


@pytest.mark.parametrize("threads", [0, 1.5, "two"])
def test_a_number_of_threads_that_is_not_allowed_is_named(other_format, other_file, threads):
    with pytest.raises(DeviceError, match=r"threads = .* is not allowed"):
        load_model(other_format.name, other_file, threads)


def test_another_format_is_refused(tmp_path):
    with pytest.raises(DeviceError, match=r"a\.foo has the format 'foo', which this runtime does not serve"):
        load_model("foo", tmp_path / "a.foo")


@pytest.mark.parametrize("name", FILE_KINDS)
def test_each_kind_of_file_has_a_format_and_a_device_that_runs_it(name):
    kind = FILE_KINDS[name]
    assert name in entry_points(group="ofa.formats").names
    assert device_formats(kind.device) == (name,)


@pytest.mark.parametrize("name", FILE_KINDS)
def test_without_the_runtime_the_error_says_what_to_install(name, monkeypatch, tmp_path):
    missing = rf" is not installed; run in the checkout: pip install -e '\.\[{name}\]'"
    monkeypatch.setattr("export.errors.find_spec", lambda _: None)
    if name == "mnn":
        import export.mnn_session

        export.mnn_session.import_mnn.cache_clear()
    with pytest.raises(DeviceError, match=missing):
        create_format(name)
    with pytest.raises(DeviceError, match=missing):
        load_model(name, tmp_path / "model")
