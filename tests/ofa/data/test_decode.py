import io
import random
import struct
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ofa.core.errors import DataError, TrainError
from ofa.data.decode import Decoder, image_suffixes, pixels_of, reading


@pytest.fixture(scope="module")
def photo():
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((48, 32))


def encoded(picture, suffix, **options):
    content = io.BytesIO()
    picture.save(content, Image.registered_extensions()[f".{suffix}"], **options)
    return content.getvalue()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_noted_is_applied(tmp_path, photo, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        upright = ImageOps.exif_transpose(opened)
    decoded = pixels_of(Decoder().file(tmp_path / f"a.{suffix}"))
    assert decoded.shape == (3, *((32, 48) if orientation < 5 else (48, 32)))
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), np.asarray(upright))


def tiff_entries(*entries, order=">"):
    """EXIF of one directory: entries `(tag, type, count, value)`, right or wrong, with values of four bytes."""
    directory = b"".join(struct.pack(f"{order}HHI4s", *entry) for entry in entries)
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


WRONGLY_TYPED = {
    "text as a number": (0x010F, 3, 1, b"\0\7\0\0"),
    "number as a text": (0x0100, 2, 4, b"abc\0"),
    "number as bytes": (0x0112 + 1, 7, 4, b"abcd"),
    "directory as a text": (0x8769, 2, 4, b"abc\0"),
    "directory of GPS beyond the end": (0x8825, 4, 1, b"\0\0\xff\0"),
    "unknown type": (0x0131, 99, 1, b"abcd"),
    "value beyond the end": (0x0132, 2, 20, b"\0\0\xff\0"),
    "several of one": (0x011A, 3, 2, b"\0\1\0\2"),
    "float of four bytes": (0x011B, 11, 1, b"\x7f\xc0\0\0"),
    "negative": (0x0128, 9, 1, b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("wrong", WRONGLY_TYPED.values(), ids=WRONGLY_TYPED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_other_tags_of_exif_may_be_wrong(photo, wrong, suffix, orientation):
    exif = tiff_entries(*sorted([(0x0112, 3, 1, struct.pack(">HH", orientation, 0)), wrong]))
    plain, tagged = encoded(photo, suffix), encoded(photo, suffix, exif=exif)
    turned = np.rot90(pixels_of(Decoder().encoded(plain, "a")), {1: 0, 3: 2, 6: 3}[orientation], axes=(1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of such tags
        assert np.array_equal(pixels_of(Decoder().encoded(tagged, "a")), turned)


@pytest.mark.parametrize("entry", [(3, 1, b"\0\0\0\0"), (3, 1, b"\0\x09\0\0"), (2, 4, b"abc\0"), (3, 2, b"\0\6\0\6")])
def test_an_orientation_that_means_nothing_leaves_the_picture_as_it_is(photo, entry):
    plain = pixels_of(Decoder().encoded(encoded(photo, "jpg"), "a"))
    for exif in (tiff_entries((0x0112, *entry)), b"Exif\0\0MM\0", b"Exif\0\0nonsense", b"Exif\0\0"):
        assert torch.equal(pixels_of(Decoder().encoded(encoded(photo, "jpg", exif=exif), "a")), plain)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif", "gif", "bmp"])
def test_damaged_bytes_are_a_picture_or_one_error(photo, suffix):
    if f".{suffix}" not in image_suffixes():
        pytest.skip(f"this Pillow does not read {suffix}")
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "a camera", 0x011A: 72.0})
    options = {"exif": exif.tobytes()} if suffix in ("jpg", "png", "webp", "avif") else {}
    whole, rng = encoded(photo, suffix, **options), random.Random(0)
    for i in range(60):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content) if i % 2 else 200)] = rng.randrange(256)
        with warnings.catch_warnings(), suppress(DataError):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # too much memory
            Decoder().encoded(bytes(content), "a")


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, AttributeError, KeyError, struct.error, SyntaxError])
def test_whatever_a_decoder_raises_is_one_error(kind):
    with pytest.raises(DataError, match=r"cannot read the image a \('?no'?\); repair or remove it"), reading("a"):
        raise kind("no")
    with pytest.raises(TrainError, match="mine"), reading("a"):
        raise TrainError("mine")


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
