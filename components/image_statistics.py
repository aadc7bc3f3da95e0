"""What images look like, in five numbers each: brightness, contrast, sharpness, width and height.

The Evaluator measures the test images, and the small model server those that it is asked about. So both must measure
in the same way, and what the model sees: an image of any size, after it was resized to the size of the contract.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from components import features

PROPERTIES = ('brightness', 'contrast', 'sharpness', 'width', 'height')
_MAX_PIXELS = 2**24  # more are not decoded: the numbers are not worth the memory
_UNKNOWN = (np.nan,) * len(PROPERTIES)

EncodedOrPixels = bytes | npt.NDArray[np.uint8]
"""An image: its encoded bytes, or its pixels, uint8 [height, width, 3]."""


def _to_gray(image: Image.Image) -> npt.NDArray[np.float32]:
    """Returns the gray values that the model sees: float32, 0-255, of the contract's height and width.

    Pillow's bilinear filter is the antialiased one of the Transform graph. TensorFlow keeps the upper eight of sixteen
    bits, while Pillow would cut off the values.
    """
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    gray, (height, width) = image.convert('L'), features.IMAGE_SHAPE[:2]
    if gray.size != (width, height):
        gray = gray.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(gray, np.float32)


def _measure_image(image: EncodedOrPixels) -> tuple[float, ...]:
    from scipy import ndimage

    try:
        opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else Image.fromarray(image)
        size = float(opened.width), float(opened.height)
        if opened.width * opened.height > _MAX_PIXELS:
            return *_UNKNOWN[:3], *size
        gray = _to_gray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return _UNKNOWN  # what Pillow raises for bytes that are not a whole image
    return float(gray.mean()), float(gray.std()), float(ndimage.laplace(gray).var()), *size


def measure_images(images: Sequence[EncodedOrPixels]) -> npt.NDArray[np.float64]:
    """Measures the properties of images: float64 [N, 5], in the order of PROPERTIES.

    Brightness is the mean and contrast the standard deviation of the gray values, both 0-255. Sharpness is the variance
    of their Laplacian. These three are those of the image after it was resized to `features.IMAGE_SHAPE`; width and
    height are its own, in pixels. The values of an image that cannot be decoded are not numbers, and neither are the
    first three of one with more than 2**24 pixels.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        return np.array(list(pool.map(_measure_image, images)), np.float64).reshape(-1, len(PROPERTIES))
