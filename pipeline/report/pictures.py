"""The test images: their thumbnails, and the properties by which accuracy is sliced."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 64  # pixels of a thumbnail's longer side at most
_QUALITY = 85

PROPERTIES = ('brightness', 'contrast', 'sharpness')


def _open(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert('RGB')


def _measure_image(encoded: bytes) -> tuple[float, float, float]:
    from scipy import ndimage

    try:
        gray = np.asarray(_open(encoded).convert('L'), np.float32)
    except OSError:
        return (np.nan,) * 3
    return float(gray.mean()), float(gray.std()), float(ndimage.laplace(gray).var())


def measure_images(images: Sequence[bytes]) -> npt.NDArray[np.float64]:
    """Measures the properties of encoded images: float64 [N, 3], in the order of PROPERTIES.

    Brightness is the mean and contrast the standard deviation of the gray values, both 0-255. Sharpness is the variance
    of their Laplacian. The values of an image that cannot be decoded are not numbers.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        return np.array(list(pool.map(_measure_image, images)), np.float64).reshape(-1, len(PROPERTIES))


def make_thumbnail(encoded: bytes) -> str:
    """Makes a data URI of an image, as a JPEG of at most 64 pixels; '' if the image cannot be decoded."""
    try:
        image = _open(encoded)
    except OSError:
        return ''
    image.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=_QUALITY, optimize=True)
    return f'data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}'
