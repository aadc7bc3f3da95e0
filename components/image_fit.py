"""Brings an image that Pillow opened into the form in which a model sees it, as the Transform graph does.

`trainer.decoding` is that graph. What is measured on images, and what the serving check sends as pixels, must fit it.
"""

import numpy as np
from PIL import ExifTags, Image

_JPEG_FORMATS = ('JPEG', 'MPO')  # the only ones whose orientation the graph applies; MPO is a JPEG with more images
_UPRIGHT = 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation that Exif counts from 1 on."""


def read_orientation(image: Image.Image) -> int:
    """Reads the orientation that a camera wrote into a JPEG file (Exif); 1, upright, for every other image."""
    found = image.getexif().get(ExifTags.Base.Orientation) if image.format in _JPEG_FORMATS else None
    return int(found) if found in _TURNS else _UPRIGHT


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image with this orientation so that it is upright."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def reduce_depth(image: Image.Image) -> Image.Image:
    """Reduces 16 bits to the upper 8, as TensorFlow does, where Pillow would cut off the values."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith('I') else image


def fit_image(image: Image.Image, size: int, *, is_stretched: bool = False) -> Image.Image:
    """Resizes an upright image so that its shorter side is `size`, and keeps the middle of the longer one.

    Args:
      image: of any size, with modes that Pillow can interpolate.
      size: height and width of the result in pixels.
      is_stretched: whether the whole image is squeezed into the square instead.

    Returns:
      The image, `size` x `size`. Pillow's bilinear filter is antialiased as that of the graph; an image that fits is
      only cut.
    """
    (width, height), shorter = image.size, min(image.size)
    wanted_width, wanted_height = (size if is_stretched else round(side / shorter * size) for side in image.size)
    x, y = width / wanted_width, height / wanted_height  # pixels of the image for one of the result
    left, top = (wanted_width - size) // 2 * x, (wanted_height - size) // 2 * y
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + size * x, top + size * y))
