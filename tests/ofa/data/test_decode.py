import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ofa.core.errors import DataError
from ofa.data.decode import Decoder, image_suffixes, pixels_of


@pytest.fixture(scope="module")
def photo():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((48, 32))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_noted_is_applied(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        upright = ImageOps.exif_transpose(opened)
    decoded = pixels_of(Decoder().file(tmp_path / "a.png"))
    assert decoded.shape == (3, *((32, 48) if orientation < 5 else (48, 32)))
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), np.asarray(upright))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_blended_onto_the_background(photo, mode):
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (32, 48), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    opaque = photo.convert(mode.removesuffix("A"))
    transparent = opaque.convert("RGBA")
    transparent.putalpha(Image.fromarray(alpha))
    decoder = Decoder(background=(250, 10, 30))
    decoded = pixels_of(decoder.picture(transparent if mode == "RGBA" else transparent.convert(mode)))
    color = np.asarray(opaque.convert("RGB")).astype(float)
    share = alpha[..., None] / 255
    expected = share * color + (1 - share) * [250, 10, 30]
    if mode != "PA":  # Pillow makes another palette
        assert np.abs(decoded.permute(1, 2, 0).numpy() - expected).max() <= 1.5
    assert decoded[:, 0, 5].tolist() == [250, 10, 30]


def test_a_transparent_color_of_a_palette_is_blended(tmp_path, photo):
    indexed = photo.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    indexed.save(tmp_path / "a.gif", transparency=int(np.asarray(indexed)[3, 4]))
    decoded = pixels_of(Decoder(background=(1, 2, 3)).file(tmp_path / "a.gif"))
    assert decoded[:, 3, 4].tolist() == [1, 2, 3]


def test_the_first_of_several_frames_is_taken(tmp_path, photo):
    frames = [photo.convert("L"), Image.new("L", photo.size, 7)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    decoded = pixels_of(Decoder(1).file(tmp_path / "a.gif"))
    assert np.abs(decoded[0].numpy().astype(int) - np.asarray(frames[0])).max() <= 1


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("suffix", ["jpg", "jfif", "png", "bmp", "webp", "tif", "gif", "avif", "ppm"])
def test_all_formats_that_pillow_reads_are_taken(tmp_path, photo, suffix, in_channels):
    if f".{suffix}" not in image_suffixes():
        pytest.skip(f"this Pillow does not read {suffix}")
    path = tmp_path / f"a.{suffix}"
    photo.save(path)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB" if in_channels == 3 else "L")).reshape(32, 48, in_channels)
    decoded = pixels_of(Decoder(in_channels).file(path))
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), expected)
    assert torch.equal(pixels_of(Decoder(in_channels).encoded(path.read_bytes(), "a")), decoded)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_more_than_8_bits_are_refused(mode):
    with pytest.raises(ValueError, match=f"its mode is {mode}; scale it to 8 bits per channel"):
        Decoder().picture(Image.new(mode, (4, 4)))


def test_broken_bytes_are_named():
    content = io.BytesIO()
    Image.new("RGB", (40, 40)).save(content, "png")
    with pytest.raises(DataError, match=r"cannot read the image 7 of pets \(.*\); repair or remove it"):
        Decoder().encoded(content.getvalue()[:60], "7 of pets")


@pytest.mark.parametrize(
    ("side", "size"), [(None, (640, 424)), (425, (640, 424)), (300, (640, 424)), (212, (320, 212)), (50, (80, 53))]
)
def test_a_jpeg_file_is_decoded_as_small_as_the_shorter_side_allows(tmp_path, side, size):
    from sklearn.datasets import load_sample_image

    whole = Image.fromarray(load_sample_image("china.jpg")[:424])
    for suffix in ("jpg", "png"):
        whole.save(tmp_path / f"a.{suffix}", quality=95)
        decoded = pixels_of(Decoder().file(tmp_path / f"a.{suffix}", None if side is None else lambda _: side))
        width, height = size if suffix == "jpg" else whole.size
        assert decoded.shape == (3, height, width)
        smaller = np.asarray(whole.resize((width, height), Image.Resampling.BOX)).astype(int)
        assert np.abs(decoded.permute(1, 2, 0).numpy() - smaller).mean() < 4
