"""What images look like, in five numbers each: brightness, contrast, sharpness, width and height.

The Evaluator measures the test images, and the small model server those that it is asked about. So both must measure
in the same way, and what the model sees: an image of any size, after it was resized to the size of the contract.
"""

import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.image_fit import fit_image, read_orientation, reduce_depth, turn_upright

PROPERTIES = ('brightness', 'contrast', 'sharpness', 'width', 'height')
_MAX_PIXELS = 2**24  # more are not decoded: the numbers are not worth the memory
_UNKNOWN = (np.nan,) * len(PROPERTIES)

EncodedOrPixels = bytes | npt.NDArray[np.uint8]
"""An image: its encoded bytes, or its pixels, uint8 [height, width, 3]."""


def _measure_image(image: EncodedOrPixels, image_size: int) -> tuple[float, ...]:
    from scipy import ndimage

    try:
        opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else Image.fromarray(image)
        if opened.width * opened.height > _MAX_PIXELS:
            return *_UNKNOWN[:3], float(opened.width), float(opened.height)
        upright = turn_upright(opened, read_orientation(opened))
        gray = np.asarray(fit_image(reduce_depth(upright).convert('L'), image_size), np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return _UNKNOWN  # what Pillow raises for bytes that are not a whole image
    sharpness = float(ndimage.laplace(gray).var())
    return float(gray.mean()), float(gray.std()), sharpness, float(upright.width), float(upright.height)


def measure_images(images: Sequence[EncodedOrPixels], image_size: int) -> npt.NDArray[np.float64]:
    """Measures the properties of images: float64 [N, 5], in the order of PROPERTIES.

    Brightness is the mean and contrast the standard deviation of the gray values, both 0-255. Sharpness is the variance
    of their Laplacian. These three are those of the image as the model sees it: upright, its shorter side resized to
    `image_size`, and the middle of the longer one, also where the model was trained with trainer.resize=stretch. Width
    and height are those of the whole upright image, in pixels. The values of an image that cannot be decoded are not
    numbers, and neither are the first three of one with more than 2**24 pixels.

    Args:
      images: any number of them.
      image_size: the contract's, in pixels.
    """
    measure = functools.partial(_measure_image, image_size=image_size)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
        return np.array(list(pool.map(measure, images)), np.float64).reshape(-1, len(PROPERTIES))
