"""Pictures as networks see them, in training and on devices alike. Free of torch, as runtimes use it."""

from PIL import ExifTags, Image, ImageOps

Color = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""
WHITE: Color = (255, 255, 255)


def upright_opaque(image: Image.Image, in_channels: int, background: Color = WHITE) -> Image.Image:
    """Return an image of 8 bits per channel as gray (1 channel) or RGB (3 channels); itself if it is that already.

    It is turned as its EXIF orientation says, and what is transparent is blended onto the background. Raises what
    Pillow does for an image that is broken, or that it cannot convert.
    """
    turned = ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image
    if turned.has_transparency_data:
        behind = Image.new("RGBA", turned.size, (*background, 255))
        turned = Image.alpha_composite(behind, turned.convert("RGBA"))
    mode = "RGB" if in_channels == 3 else "L"
    if turned.mode != mode:
        return turned.convert(mode)
    turned.load()
    return turned
