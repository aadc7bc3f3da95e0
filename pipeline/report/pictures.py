"""Pictures of the page, as data URIs."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.image_fit import read_orientation, reduce_depth, turn_upright

_SIDE = 96  # pixels of a thumbnail's longer side at most; the page shows it in 64, so that it is sharp on fine screens
_QUALITY = 85


def _open(encoded: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(encoded))
    return reduce_depth(turn_upright(image, read_orientation(image))).convert('RGB')


def is_image(encoded: bytes) -> bool:
    """Returns whether bytes can be decoded as an image."""
    try:
        _open(encoded)
    except OSError:
        return False
    return True


def _make_uri(image: Image.Image) -> str:
    """Makes a data URI of an image, as a JPEG."""
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=_QUALITY, optimize=True)
    return f'data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}'


def make_picture(pixels: npt.NDArray[np.uint8]) -> str:
    """Makes a data URI of pixels, uint8 RGB [H, W, 3]."""
    return _make_uri(Image.fromarray(pixels))


def make_overlay(seen: npt.NDArray[np.uint8], cam: npt.NDArray[np.floating[Any]]) -> str:
    """Makes a data URI of the network's input under a map of where it looked: bright yellow where it is 1.

    Args:
      seen: the input, uint8 RGB [S, S, 3].
      cam: values 0-1, float [h, w].
    """
    from matplotlib import colormaps

    image = Image.fromarray(seen)
    image.thumbnail((_SIDE, _SIDE))
    heat = Image.fromarray(np.rint(cam * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    colored = (np.asarray(colormaps['inferno'](np.asarray(heat)))[..., :3] * 255).astype(np.uint8)
    return _make_uri(Image.blend(image, Image.fromarray(colored), 0.6))


def make_thumbnail(encoded: bytes) -> str:
    """Makes a data URI of an image, as a JPEG of at most _SIDE pixels; '' if the image cannot be decoded."""
    try:
        image = _open(encoded)
    except OSError:
        return ''
    image.thumbnail((_SIDE, _SIDE))
    return _make_uri(image)
