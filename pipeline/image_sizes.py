"""Which images are of other sizes than those that a model was trained with, so that its accuracy may not hold.

Tiny training images, such as those of CIFAR-10, were collected at their size, so a photograph that is shrunk to it is
unlike them. Larger ones were photographs themselves, and were shrunk in the same way.
"""

_LARGEST_TINY = 64  # pixels

# A tiny image is far from the training images if a side is more than this many times longer or shorter. Resizing by 4
# leaves one pixel of sixteen; enlarged twice, three pixels of four are made up.
MOST_TIMES_LARGER = 4
MOST_TIMES_SMALLER = 2


def is_tiny(image_size: int) -> bool:
    """Whether training images with a shorter side of so many pixels were no photographs that were shrunk to it."""
    return image_size <= _LARGEST_TINY


def is_too_large(longer_side: float, image_size: int) -> bool:
    """Whether an image, in pixels, is so much larger than the training images that it is unlike them."""
    return is_tiny(image_size) and longer_side > MOST_TIMES_LARGER * image_size


def is_too_small(shorter_side: float, image_size: int) -> bool:
    """Whether an image, in pixels, must be enlarged, tiny ones more than MOST_TIMES_SMALLER times."""
    times = MOST_TIMES_SMALLER if is_tiny(image_size) else 1
    return times * shorter_side < image_size
