"""What is stored of a picture: its own bytes where they fit, else the picture upright, in RGB and at the stored size.

Called by `components.data.images.pool` in processes of their own, so it does not import TensorFlow, and returns what is
wrong with a file instead of raising. Pixels are those that TensorFlow's `decode_image(channels=3)` shows, which serving
uses: an alpha channel is dropped, 16 bits lose the lower 8, and a colour profile is not looked at.
"""

import hashlib
import io
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageChops

from components.data import cifar10
from components.data.images.reading import FAULTS, RefusalError, open_picture, read_file
from components.errors import to_one_line
from components.image_fit import reduce_depth, turn_upright

MAX_STORED_PIXELS = 2**24  # as the data gate's max_pixels, above which it refuses a record
_JPEG_QUALITY = 95
_MAX_DRAFT = 2  # a JPEG that is shrunk while it is decoded stays at least this many times as large as it is stored
_UPRIGHT = 1  # the EXIF orientation of a picture that is stored as it is shown
_ORIENTATIONS = range(_UPRIGHT, 9)
_FIRST_ON_ITS_SIDE = 5  # from this orientation on width and height change places
_MODES = {
    '1': 'black and white to RGB',
    'L': 'grey to RGB',
    'LA': 'grey with alpha to RGB',
    'P': 'palette to RGB',
    'PA': 'palette with alpha to RGB',
    'RGBA': 'alpha dropped',
    'CMYK': 'CMYK to RGB',
    'I;16': '16-bit grey to RGB',
    'I': '16-bit grey to RGB',
}
"""What is done to pictures in Pillow's modes."""


class Converted(NamedTuple):
    """What became of a file.

    outcome: 'stored' (its own bytes), 'converted' or 'refused'.
    reason: what was done or is wrong, in words; '' if it is stored.
    content: the bytes to store; empty if it is refused.
    sha256: of the file, lower-case hex; '' if it cannot be read.
    size, stored_size: width and height of the file and of what is stored, in pixels; 0, 0 if that is not known.
    pixels: SHA-256 of the stored pixels, equal for equal pictures; empty if it is refused.
    """

    outcome: str
    reason: str
    content: bytes
    sha256: str
    size: tuple[int, int]
    stored_size: tuple[int, int]
    pixels: bytes


def _scale(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Returns width and height with the same aspect and a shorter side of `shorter` pixels."""
    width, height = (max(shorter, round(side * shorter / min(size))) for side in size)
    if width * height > MAX_STORED_PIXELS:
        raise RefusalError(f'too long and narrow: {size[0]}x{size[1]}')
    return width, height


def _read_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 where none is given, or none that can be read."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))
    except FAULTS:
        return _UPRIGHT
    return orientation if orientation in _ORIENTATIONS else _UPRIGHT


def _has_16_bits(image: Image.Image, content: bytes) -> bool:
    """Whether a picture is a PNG with 16 bits; Pillow shows one in colour as RGB with 8."""
    return image.format == 'PNG' and content[24] == 16  # the bit depth in the header, IHDR


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.format == 'GIF' and 'transparency' in image.info:
        image = image.convert('RGBA')
        image.paste(0, mask=ImageChops.invert(image.getchannel('A')))  # TensorFlow shows black there
    return reduce_depth(image).convert('RGB')


def _describe(image: Image.Image, content: bytes, orientation: int) -> list[str]:
    """Says what keeps a picture from being stored as it is, but for its size."""
    reasons = ['the first of its frames'] if getattr(image, 'is_animated', False) else []
    if image.mode != 'RGB':
        reasons.append(_MODES.get(image.mode, f'{image.mode} to RGB'))
    elif _has_16_bits(image, content):
        reasons.append('16 bits to 8')
    if orientation != _UPRIGHT:
        reasons.append('rotated by its EXIF orientation')
    return reasons


def _encode(image: Image.Image, shorter: int) -> tuple[str, bytes]:
    """Encodes a picture: as PNG at the size of CIFAR-10, where JPEG would be seen, else as JPEG."""
    buffer = io.BytesIO()
    if shorter <= cifar10.CONTRACT.image_size:
        image.save(buffer, 'PNG')
        return 'PNG', buffer.getvalue()
    image.save(buffer, 'JPEG', quality=_JPEG_QUALITY)
    return 'JPEG', buffer.getvalue()


def _digest_pixels(image: Image.Image) -> bytes:
    return hashlib.sha256(f'{image.width}x{image.height}'.encode() + image.tobytes()).digest()


def _make_upright(image: Image.Image, orientation: int, scaled: tuple[int, int]) -> Image.Image:
    """Decodes a picture and makes it RGB, upright, and as large as `scaled`, which is meant before it is rotated."""
    image.draft(None, (_MAX_DRAFT * scaled[0], _MAX_DRAFT * scaled[1]))
    if orientation >= _FIRST_ON_ITS_SIDE:
        scaled = scaled[::-1]
    upright = _to_rgb(turn_upright(image, orientation))
    if scaled != upright.size:
        upright = upright.resize(scaled, Image.Resampling.BILINEAR)
    upright.info.clear()  # a colour profile, EXIF data, and a transparent colour, which would be saved
    return upright


def _convert(image: Image.Image, content: bytes, sha256: str, shorter: int) -> Converted:
    kind, size = image.format or '', image.size
    orientation = _read_orientation(image)
    reasons = _describe(image, content, orientation)
    scaled = _scale(size, shorter)
    if kind in ('JPEG', 'PNG') and not reasons and scaled == size:
        return Converted('stored', '', content, sha256, size, size, _digest_pixels(image))
    upright = _make_upright(image, orientation, scaled)
    stored_kind, stored = _encode(upright, shorter)
    if scaled != size:
        reasons.append(f'{size[0]}x{size[1]} to {upright.width}x{upright.height}')
    if stored_kind != kind:
        reasons.append(f'{kind} to {stored_kind}')
    return Converted('converted', ', '.join(reasons), stored, sha256, size, upright.size, _digest_pixels(upright))


def convert_image(path: Path, shorter: int) -> Converted:
    """Reads a file and makes what is to be stored of it.

    Args:
      path: the file.
      shorter: length in pixels that the shorter side must have.

    Returns:
      The bytes to store, or why there are none. A file that is empty, damaged, no picture, or declares more than
      MAX_PIXELS pixels is refused.
    """
    sha256, size = '', (0, 0)
    try:
        content = read_file(path)
        sha256 = hashlib.sha256(content).hexdigest()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of strange EXIF data
            image = open_picture(content)
            size = image.size
            return _convert(image, content, sha256, shorter)
    except RefusalError as error:
        reason = str(error)
    except FAULTS as error:
        reason = f'damaged: {to_one_line(error, 100)}'
    return Converted('refused', reason, b'', sha256, size, (0, 0), b'')
