import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from export.preprocess import Preprocess
from ofa.core.errors import DataError
from ofa.data.decode import Decoder, pixels_of

ROOT = Path(__file__).parents[2]
GRAY = Preprocess(24, 1, (0.29,), (0.35,))
COLOR = Preprocess(24, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def difference_from_torchvision(image, preprocess):
    """The largest difference, as a fraction of full scale, for an image `[h, w, channels]`."""
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()
    size = [preprocess.resolution]
    tensor = tv.resize(tensor, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    tensor = tv.center_crop(tensor, size) / 255
    expected = tv.normalize(tensor, list(preprocess.mean), list(preprocess.std)).numpy()
    return (np.abs(preprocess([image])[0] - expected) * np.array(preprocess.std)[:, None, None]).max()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 3]),
    st.integers(2, 70),  # torch's own result is wrong one pixel wide: off by up to 20 of 255 from the exact filter
)
def test_equals_torchvision_at_any_size(height, width, channels, resolution):
    preprocess = Preprocess(resolution, channels, (0.4,) * channels, (0.3,) * channels)
    assert difference_from_torchvision(pixels(height, width, channels), preprocess) < 1e-5


@pytest.mark.parametrize(
    ("size", "resolution", "channels"),
    [((8, 8), 32, 1), ((28, 28), 20, 1), ((37, 50), 24, 3), ((51, 33), 24, 3), ((224, 301), 160, 3), ((32, 33), 32, 1)],
)
def test_equals_torchvision_at_sizes_in_use(size, resolution, channels):
    preprocess = Preprocess(resolution, channels, (0.4,) * channels, (0.3,) * channels)
    assert difference_from_torchvision(pixels(*size, channels), preprocess) < 1e-5


sides = st.integers(1, 12)
seeds = st.integers(0, 99)


def as_pil(picture):
    """A single picture `[h, w]` or `[h, w, c]` as PIL reads it from a file; a PIL image as it is."""
    if isinstance(picture, Image.Image):
        return picture
    return Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)


def as_in_training(picture, preprocess):
    """The same as a picture of the model's mode, as training decodes it."""
    decoded = pixels_of(Decoder(preprocess.in_channels, preprocess.background).picture(as_pil(picture)))
    return preprocess([decoded.permute(1, 2, 0).numpy()])


@pytest.mark.parametrize("preprocess", [GRAY, COLOR])
@given(height=sides, width=sides, channels=st.integers(0, 4), seed=seeds)
def test_one_picture_means_the_same_as_array_as_pil_image_and_in_a_list(preprocess, height, width, channels, seed):
    picture = pixels(height, width, *([channels] if channels else []), seed=seed)
    expected = as_in_training(picture, preprocess)
    for same in (picture, [picture], (picture,), as_pil(picture), [as_pil(picture)]):
        assert np.array_equal(preprocess(same), expected)


@pytest.mark.parametrize("preprocess", [GRAY, COLOR])
@given(n=st.integers(1, 4), height=sides, width=sides, channels=st.integers(0, 4), seed=seeds)
def test_many_pictures_mean_the_same_as_an_array_and_one_by_one(preprocess, n, height, width, channels, seed):
    if not channels:
        width += 4  # [n, h, 1 to 4] is one picture
    pictures = pixels(n, height, width, *([channels] if channels else []), seed=seed)
    expected = np.concatenate([as_in_training(picture, preprocess) for picture in pictures])
    assert expected.shape == (n, preprocess.in_channels, 24, 24)
    assert expected.dtype == np.float32
    for same in (pictures, list(pictures), [as_pil(picture) for picture in pictures]):
        assert np.array_equal(preprocess(same), expected)


@given(height=sides, width=sides, channels=st.sampled_from([2, 4]), seed=seeds, in_channels=st.sampled_from([1, 3]))
def test_transparent_parts_are_blended_onto_the_background(height, width, channels, seed, in_channels):
    preprocess = replace(COLOR if in_channels == 3 else GRAY, background=(250, 10, 30))
    picture = pixels(height, width, channels, seed=seed)
    opaque, nothing = picture.copy(), picture.copy()
    opaque[:, :, -1], nothing[:, :, -1] = 255, 0
    color = picture[:, :, : channels - 1]
    assert np.array_equal(preprocess(opaque), preprocess(color))
    background = Image.new("RGB", (width, height), preprocess.background)
    assert np.array_equal(preprocess(nothing), preprocess(background))
    share = picture[:, :, -1:] / 255
    whole = np.broadcast_to(color, (height, width, 3))
    blended = np.rint(share * whole + (1 - share) * preprocess.background).astype(np.uint8)
    difference = np.abs(preprocess(picture) - preprocess(blended)) * np.array(preprocess.std)[:, None, None] * 255
    assert difference.max() < 2.5  # Pillow rounds twice


def test_an_array_of_four_columns_is_one_picture_with_alpha():
    picture = pixels(24, 24, 4)
    picture[:, :, 3] = 255
    assert COLOR(picture).shape == (1, 3, 24, 24)
    assert np.array_equal(COLOR(picture), COLOR(picture[:, :, :3]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_noted(orientation):
    image = Image.fromarray(pixels(40, 30, 3))
    image.getexif()[0x0112] = orientation
    assert np.array_equal(COLOR(image), COLOR(np.asarray(ImageOps.exif_transpose(image))))


def test_pil_images_and_arrays_of_different_sizes_mix():
    arrays = [pixels(30, 40, 3), pixels(25, 24, 3, seed=1), pixels(24, 24, seed=2)]
    mixed = [Image.fromarray(arrays[0]), arrays[1], arrays[2]]
    assert np.array_equal(COLOR(mixed), np.concatenate([COLOR(array) for array in arrays]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("preprocess", [GRAY, COLOR])
def test_pil_images_of_any_8_bit_mode_are_converted_as_in_training(preprocess, mode):
    image = Image.new(mode, (30, 20), 1)
    expected = as_in_training(image, preprocess)
    assert np.array_equal(preprocess(image), expected)


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16L", "I;16B"])
def test_pil_images_deeper_than_8_bits_are_refused(mode):
    for pictures in (Image.new(mode, (28, 28)), [Image.new(mode, (28, 28))]):
        with pytest.raises(DataError, match=f"mode '{mode}' and size .* is not allowed; give .* 8 bits"):
            GRAY(pictures)


def test_a_pil_image_that_cannot_be_converted_is_refused():
    with pytest.raises(DataError, match=r"a PIL image of mode 'LAB' \(conversion .*\); convert it to RGB first"):
        GRAY(Image.new("LAB", (28, 28)))


def test_a_pil_image_of_a_truncated_file_is_refused(tmp_path):
    Image.fromarray(pixels(64, 64, 3)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with Image.open(tmp_path / "half.png") as image, pytest.raises(DataError, match="a PIL image of mode 'RGB'"):
        GRAY(image)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, struct.error])
def test_whatever_a_decoder_raises_is_one_error(monkeypatch, kind):
    def fail(_):
        raise kind("broken")

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(DataError, match=r"a PIL image of mode 'L' \(broken\)"):
        GRAY(Image.new("L", (28, 28)))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((2, 28, 28), dtype=np.float32), r"a picture of float32 \[28, 28\] is not allowed; give uint8"),
        ([np.zeros((28, 28), dtype=np.int64)], r"a picture of int64 \[28, 28\]"),
        (np.zeros((28, 28), dtype=bool), r"a picture of bool \[28, 28\]"),
        (np.zeros((28, 28), dtype=object), r"a picture of object \[28, 28\]"),
        (["cat.png"], "a picture of type str"),
        ([pixels(28, 28), None], "a picture of type NoneType"),
        ([[1, 2], [3, 4]], "a picture of type list"),
        ("cat.png", "a picture of type str"),
        ({"a": pixels(28, 28)}, "a picture of type dict"),
        (None, "a picture of type NoneType"),
        (torch.zeros(28, 28, dtype=torch.uint8), "a picture of type Tensor"),
        ([], "no pictures; give at least one"),
        (pixels(0, 28, 28), "no pictures; give at least one"),
        (pixels(28), r"a picture of uint8 \[28\]"),
        (np.uint8(5) * np.ones((), np.uint8), r"a picture of (uint8|type uint8)"),
        (pixels(1, 2, 28, 28, 3), r"a picture of uint8 \[1, 2, 28, 28, 3\]"),
        ([pixels(1, 28, 28)], r"a picture of uint8 \[1, 28, 28\]"),
        ([pixels(1, 28, 28, 3)], r"a picture of uint8 \[1, 28, 28, 3\]"),
        (pixels(2, 28, 28, 5), r"a picture of uint8 \[28, 28, 5\]"),
        ([pixels(0, 28)], r"a picture of uint8 \[0, 28\]"),
        (pixels(0, 28), r"a picture of uint8 \[0, 28\]"),
        (pixels(28, 0, 3), r"a picture of uint8 \[28, 0, 3\]"),
        (pixels(2, 28, 0), r"a picture of uint8 \[28, 0\]"),
        (Image.new("L", (0, 5)), "a picture of mode 'L' and size"),
    ],
)
def test_anything_else_is_refused(pictures, message):
    for preprocess in (GRAY, COLOR):
        with pytest.raises(DataError, match=message):
            preprocess(pictures)


@pytest.mark.parametrize("page", ["docstring", "docs/bundle.md"])
def test_both_tables_of_inputs_have_the_same_rows(page):
    text = Preprocess.__call__.__doc__ if page == "docstring" else (ROOT / page).read_text()
    rows = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    start = next(i for i, row in enumerate(rows) if row.endswith("| meaning |"))
    assert rows[start + 2 : start + 8] == [
        "| uint8 array `[h, w]` | one gray picture |",
        "| uint8 array `[h, w, c]`, `c` from 1 to 4 | one picture: gray, gray and alpha, RGB, RGBA |",
        "| uint8 array `[n, h, w]`, `w` above 4 | `n` gray pictures |",
        "| uint8 array `[n, h, w, c]`, `c` from 1 to 4 | `n` pictures |",
        "| PIL image with 8 bits per channel | one picture, in any such mode |",
        "| list or tuple | single pictures as above, of any sizes |",
    ]
