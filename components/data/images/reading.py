"""Reads the bytes and the header of a picture's file, and refuses what must not be decoded.

Called by `components.data.images.convert` and, for a look at the header or the SHA-256 alone, by what calls that.
"""

import hashlib
import io
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image

MAX_PIXELS = 100_000_000  # of a picture; one that declares more is not decoded
_MAX_BYTES = 512 * 1024**2  # of a file, which is read into memory
_FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP')
# What Pillow raises for files that are not whole pictures.
FAULTS = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error)


class RefusalError(Exception):
    """A file that is not used; the message says why."""


def compute_sha256(path: Path) -> str:
    """Computes the SHA-256 of a file: lower-case hex; '' if it cannot be read."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except RefusalError:
        return ''


def has_size(path: Path, size: int) -> bool:
    """Whether a file's header says that the picture is size x size; also True for a file that is no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path, formats=_FORMATS) as image:
                return image.size == (size, size)
    except (Image.DecompressionBombError, *FAULTS):
        return True


def read_file(path: Path) -> bytes:
    """Returns the bytes of a file.

    Raises:
      RefusalError: it cannot be read, or is very large.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RefusalError(f'too large: more than {_MAX_BYTES // 1024**2} MB')
        return path.read_bytes()
    except OSError as error:
        raise RefusalError(f'cannot be read: {error.strerror}') from error


def open_picture(content: bytes) -> Image.Image:
    """Opens a picture, which reads only its header.

    Raises:
      RefusalError: it is no picture, or one with too many pixels.
    """
    if not content:
        raise RefusalError('the file is empty')
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise RefusalError(f'too many pixels: more than {MAX_PIXELS:,}, not decoded') from error
    except FAULTS as error:
        raise RefusalError('no whole JPEG, PNG, BMP, GIF or WEBP picture') from error
    if image.width * image.height > MAX_PIXELS:
        raise RefusalError(f'too many pixels: {image.width}x{image.height}, more than {MAX_PIXELS:,}, not decoded')
    return image
