"""Pictures as networks see them, in training and on devices alike. Free of torch, as runtimes use it."""

from PIL import ExifTags, Image

Color = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""
WHITE: Color = (255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation; 1 is upright."""


def upright_opaque(image: Image.Image, in_channels: int, background: Color = WHITE) -> Image.Image:
    """Return an image of 8 bits per channel as gray (1 channel) or RGB (3 channels); itself if it is that already.

    It is turned as its EXIF orientation says, and what is transparent is blended onto the background. Raises what
    Pillow does for an image that is broken, or that it cannot convert.
    """
    image.load()  # Pillow itself turns TIFF files here, and no longer says so afterwards
    turn = _turn(image)
    turned = image if turn is None else image.transpose(turn)
    if turned.has_transparency_data:
        behind = Image.new("RGBA", turned.size, (*background, 255))
        turned = Image.alpha_composite(behind, turned.convert("RGBA"))
    mode = "RGB" if in_channels == 3 else "L"
    return turned if turned.mode == mode else turned.convert(mode)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what makes an image upright; None if its EXIF orientation says nothing else, or cannot be read."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises errors of many kinds, and the picture may be whole
        return None
