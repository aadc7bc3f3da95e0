"""Decodes image files to the size of the data contract, with TensorFlow operations only, as part of Transform's graph.

Training, evaluation and serving run this graph, so they see the same pixels of the same file.
"""

import tensorflow as tf

from components.contract import CHANNELS

# Where a JPEG file says how the camera was held: in a TIFF structure after the mark 'Exif\0\0' (Exif 2.32, 4.5-4.6).
_EXIF_MARK = b'Exif\x00\x00'
_HEADER_BYTES = 4096  # at the begin of a file in which the mark and the orientation are looked for
_ORIENTATION_TAG = 0x0112
_ENTRY_BYTES = 12
_UPRIGHT = 1
_JPEG = b'\xff\xd8\xff'  # how a JPEG file begins

_MIRRORED = (2, 3, 6, 7)  # orientations whose pixels must be mirrored left to right, after transposing
_FLIPPED = (3, 4, 7, 8)  # and top to bottom
_TRANSPOSED = 5  # this orientation and those above it have rows and columns exchanged

# Of a WEBP file: 'WEBP' at 8, the first chunk's name at 12, and at 20 its content (RFC 9649, 2.4 to 2.7 and 3.4).
_ANIMATION, _ALPHA = 0x02, 0x10  # bits of the first byte of VP8X; the fifth byte of VP8L has a bit for alpha too


def _read_number(header: tf.Tensor, place: tf.Tensor, count: int, is_little: tf.Tensor) -> tf.Tensor:
    """Reads an unsigned number of `count` bytes, int32; 0 where the header, int32 [N], has ended before it."""
    places = place + tf.range(count)
    values = tf.gather(header, tf.clip_by_value(places, 0, tf.size(header) - 1))
    values = tf.where(is_little, tf.reverse(values, [0]), values)
    number = tf.reduce_sum(values * 256 ** tf.range(count - 1, -1, -1))
    return tf.where(tf.reduce_all((places >= 0) & (places < tf.size(header))), number, 0)


def _read_exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """See `read_orientation`; for a JPEG file."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 0, _HEADER_BYTES), tf.uint8), tf.int32)
    starts = tf.maximum(tf.size(header) - len(_EXIF_MARK), 0)
    equal = [tf.equal(header[index : starts + index], byte) for index, byte in enumerate(_EXIF_MARK)]
    tiff = tf.reduce_min(tf.where(tf.reduce_all(equal, axis=0), tf.range(starts), _HEADER_BYTES)) + len(_EXIF_MARK)
    is_little = tf.equal(_read_number(header, tiff, 1, tf.constant(False)), ord('I'))
    directory = tiff + tf.clip_by_value(_read_number(header, tiff + 4, 4, is_little), 0, _HEADER_BYTES)
    count = _read_number(header, directory, 2, is_little)
    tags = directory + 2 + _ENTRY_BYTES * tf.range(tf.minimum(count, _HEADER_BYTES // _ENTRY_BYTES))
    found = tf.map_fn(lambda place: _read_number(header, place, 2, is_little), tags)
    place = tf.reduce_min(tf.where(tf.equal(found, _ORIENTATION_TAG), tags, _HEADER_BYTES))
    return _read_number(header, place + 8, 2, is_little)


def read_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the Exif orientation of an image file.

    Args:
      encoded: The bytes of a file, string scalar.

    Returns:
      1 to 8, int32 scalar, as Exif counts them; 1 (upright) for any file but a JPEG, and for a JPEG that does not say.
    """
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, len(_JPEG)), _JPEG)
    orientation = tf.cond(is_jpeg, lambda: _read_exif_orientation(encoded), lambda: tf.constant(_UPRIGHT))
    return tf.where((orientation >= _UPRIGHT) & (orientation <= 8), orientation, _UPRIGHT)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image, [H, W, 3], with an Exif orientation, int32 scalar, so that it is upright."""

    def turn() -> tf.Tensor:
        turned = tf.cond(orientation >= _TRANSPOSED, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        for orientations, axis in ((_MIRRORED, 1), (_FLIPPED, 0)):
            is_needed = tf.reduce_any(tf.equal(orientation, orientations))
            turned = tf.cond(is_needed, lambda turned=turned, axis=axis: tf.reverse(turned, [axis]), lambda t=turned: t)
        return turned

    return tf.cond(orientation > _UPRIGHT, turn, lambda: image)


def fit_image(image: tf.Tensor, size: int, *, is_stretched: bool) -> tf.Tensor:
    """Resizes an image to `size` x `size`: its shorter side becomes `size`, and the middle of the longer one is kept.

    Args:
      image: uint8 [H, W, 3].
      size: Height and width of the result in pixels.
      is_stretched: Whether the whole image is squeezed into the square instead.

    Returns:
      uint8 [size, size, 3]. Only what is larger is smoothed (antialiased); an image that fits is unchanged.
    """
    shape = tf.shape(image)[:2]
    if is_stretched:
        wanted = tf.fill([2], size)
    else:
        ratio = tf.cast(shape, tf.float64) / tf.cast(tf.reduce_min(shape), tf.float64)
        wanted = tf.cast(tf.round(ratio * size), tf.int32)
    offset = (wanted - size) // 2

    def resize() -> tf.Tensor:
        # What tf.image.resize does with antialias=True, for the middle only: a long image would fill the memory.
        resized = tf.raw_ops.ScaleAndTranslate(
            images=image[tf.newaxis],
            size=[size, size],
            scale=tf.cast(wanted, tf.float32) / tf.cast(shape, tf.float32),
            translation=-tf.cast(offset, tf.float32),
            kernel_type='triangle',
            antialias=True,
        )[0]
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    def crop() -> tf.Tensor:
        return image[offset[0] : offset[0] + size, offset[1] : offset[1] + size]

    return tf.ensure_shape(tf.cond(tf.reduce_all(tf.equal(shape, wanted)), crop, resize), [size, size, CHANNELS])


def _read_webp_flags(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads whether an image file, string scalar, is an animated WEBP, and whether it is a WEBP with alpha; bools."""
    header = tf.strings.substr(encoded + bytes(25), 0, 25)
    kind, values = tf.strings.substr(header, 12, 4), tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int32)
    is_webp = tf.equal(tf.strings.substr(header, 8, 4), b'WEBP')
    is_extended = is_webp & tf.equal(kind, b'VP8X')
    is_lossless = is_webp & tf.equal(kind, b'VP8L')
    is_animated = is_extended & (tf.bitwise.bitwise_and(values[20], _ANIMATION) > 0)
    flags = tf.where(is_extended, values[20], tf.where(is_lossless, values[24], 0))
    return is_animated, tf.bitwise.bitwise_and(flags, _ALPHA) > 0


def decode_image(encoded: tf.Tensor, size: int, *, is_stretched: bool = False) -> tf.Tensor:
    """Decodes one image file of any size to uint8 [size, size, 3], RGB, upright.

    Args:
      encoded: PNG, JPEG, GIF (its first frame), BMP or WEBP (not animated) bytes, string scalar. Grey images become
        RGB, and transparency is dropped.
      size: The contract's image_size.
      is_stretched: See `fit_image`.

    Raises:
      tf.errors.InvalidArgumentError: When run, if the bytes are not an image that TensorFlow can decode.
    """
    is_animated, has_alpha = _read_webp_flags(encoded)
    # TensorFlow drops the transparency of every other form by itself, and refuses to drop that of WEBP. Asked for the
    # first frame of an animated WEBP, it can write behind the memory of the image (2.21), so it is not asked.
    image = tf.cond(
        has_alpha & ~is_animated,
        lambda: tf.io.decode_image(encoded, channels=CHANNELS + 1, expand_animations=False)[..., :CHANNELS],
        lambda: tf.io.decode_image(tf.where(is_animated, b'', encoded), channels=CHANNELS, expand_animations=False),
    )
    image.set_shape([None, None, CHANNELS])
    image = turn_upright(image, read_orientation(encoded))
    return fit_image(image, size, is_stretched=is_stretched)
