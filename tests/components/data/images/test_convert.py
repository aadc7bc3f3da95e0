"""What is stored of a picture, of every kind that cameras, phones and programs write."""

import io

import numpy as np
import pytest
from PIL import Image

from components.data.images import convert
from components.data.images.convert import convert_image
from tests.components.data.images.pictures import declare_png, draw, encode, encode_wide_png

ORIENTATION = 0x0112  # EXIF's number


def convert_bytes(content: bytes, tmp_path, shorter: int = 40) -> convert.Converted:
    path = tmp_path / 'picture'
    path.write_bytes(content)
    return convert_image(path, shorter)


def decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == 'RGB'
        assert not image.getexif()
        return np.asarray(image).astype(int)


def make_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_a_picture_that_fits_keeps_its_own_bytes(kind, tmp_path):
    content = encode(draw(0), kind)
    converted = convert_bytes(content, tmp_path)
    assert (converted.outcome, converted.reason, converted.content) == ('stored', '', content)
    assert converted.size == converted.stored_size == (48, 40)


SMALL = 38, 32  # at the size of CIFAR-10 PNG is written, so that pixels can be compared
PALETTE = draw(0, SMALL).quantize(16)

# What must not be stored as it is, and what is said of it.
CONVERTED = {
    'grey': (encode(draw(0, SMALL, 'L'), 'PNG'), 'grey to RGB'),
    'grey JPEG': (encode(draw(0, SMALL, 'L'), 'JPEG'), 'grey to RGB, JPEG to PNG'),
    'grey with alpha': (encode(draw(0, SMALL, 'RGBA').convert('LA'), 'PNG'), 'grey with alpha to RGB'),
    'alpha': (encode(draw(0, SMALL, 'RGBA'), 'PNG'), 'alpha dropped'),
    'palette': (encode(PALETTE, 'PNG'), 'palette to RGB'),
    'palette with a transparent colour': (encode(PALETTE, 'PNG', transparency=3), 'palette to RGB'),
    'black and white': (encode(draw(0, SMALL, '1'), 'PNG'), 'black and white to RGB'),
    '16-bit grey': (encode_wide_png(1, SMALL), '16-bit grey to RGB'),
    '16-bit grey with alpha': (encode_wide_png(2, SMALL), 'alpha dropped'),
    '16 bits': (encode_wide_png(3, SMALL), '16 bits to 8'),
    '16 bits with alpha': (encode_wide_png(4, SMALL), 'alpha dropped'),
    'BMP': (encode(draw(0, SMALL), 'BMP'), 'BMP to PNG'),
    'GIF': (encode(PALETTE, 'GIF'), 'palette to RGB, GIF to PNG'),
    'GIF with a transparent colour': (encode(PALETTE, 'GIF', transparency=3), 'palette to RGB, GIF to PNG'),
    'WEBP': (encode(draw(0, SMALL), 'WEBP', lossless=True), 'WEBP to PNG'),
    'animated PNG': (
        encode(draw(0, SMALL), 'PNG', save_all=True, append_images=[draw(1, SMALL)]),
        'the first of its frames',
    ),
    'animated GIF': (
        encode(PALETTE, 'GIF', save_all=True, append_images=[PALETTE.rotate(90)]),
        'the first of its frames, palette to RGB, GIF to PNG',
    ),
}


@pytest.mark.parametrize('name', CONVERTED)
def test_what_is_stored_is_what_tensorflow_shows_of_the_file(name, tmp_path):
    import tensorflow as tf

    content, reason = CONVERTED[name]
    converted = convert_bytes(content, tmp_path, 32)
    assert (converted.outcome, converted.reason) == ('converted', reason)
    shown = tf.io.decode_image(content, channels=3, expand_animations=False).numpy().astype(int)
    # TensorFlow decodes JPEGs with a faster and less exact transform.
    assert np.abs(decode(converted.content) - shown).max() <= (2 if 'JPEG' in reason else 0)


# What TensorFlow cannot decode as RGB, or shows in wrong colours.
OTHERS = {
    'CMYK': (encode(draw(0, SMALL, 'CMYK'), 'JPEG', quality=95), 'CMYK to RGB, JPEG to PNG'),
    'BMP with a palette': (encode(PALETTE, 'BMP'), 'palette to RGB, BMP to PNG'),
    'WEBP with alpha': (
        encode(draw(0, SMALL, 'RGBA'), 'WEBP', lossless=True, exact=True),
        'alpha dropped, WEBP to PNG',
    ),
    'animated WEBP': (
        encode(draw(0, SMALL), 'WEBP', save_all=True, append_images=[draw(1, SMALL)], lossless=True),
        'the first of its frames, alpha dropped, WEBP to PNG',
    ),
}


@pytest.mark.parametrize('name', OTHERS)
def test_what_tensorflow_cannot_decode_is_shown_as_other_programs_do(name, tmp_path):
    content, reason = OTHERS[name]
    converted = convert_bytes(content, tmp_path, 32)
    assert (converted.outcome, converted.reason) == ('converted', reason)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(decode(converted.content), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_stored_upright_whatever_their_orientation(orientation, tmp_path):
    upright = draw(3, (60, 40))
    # Which way a camera was held for each orientation, undone.
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    held = upright
    for step in undo.get(orientation, []):
        held = held.transpose(step)
    content = encode(held, 'JPEG', quality=98, exif=make_exif(orientation))
    converted = convert_bytes(content, tmp_path)
    assert converted.stored_size == (60, 40)
    assert converted.outcome == ('stored' if orientation == 1 else 'converted')
    if orientation > 1:
        assert converted.reason == 'rotated by its EXIF orientation'
        assert np.abs(decode(converted.content) - np.asarray(upright)).mean() < 8
    else:
        assert converted.content == content


def test_exif_data_that_cannot_be_read_says_nothing(tmp_path):
    content = encode(draw(0), 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\x7f')
    assert convert_bytes(content, tmp_path).outcome == 'stored'


@pytest.mark.parametrize(
    ('size', 'stored'),
    [((640, 480), (53, 40)), ((480, 640), (40, 53)), ((20, 30), (40, 60)), ((4000, 3000), (53, 40)), ((100, 40), None)],
)
def test_the_shorter_side_is_resized_and_the_aspect_kept(size, stored, tmp_path):
    content = encode(draw(0, size), 'JPEG', quality=95)
    converted = convert_bytes(content, tmp_path)
    assert converted.stored_size == (stored or size)
    assert converted.outcome == ('converted' if stored else 'stored')
    if stored:
        assert converted.reason == f'{size[0]}x{size[1]} to {stored[0]}x{stored[1]}'
        whole = Image.fromarray(decode(content).astype(np.uint8)).resize(stored, Image.Resampling.BILINEAR)
        assert np.abs(decode(converted.content) - np.asarray(whole)).mean() < 6  # what JPEG changes


@pytest.mark.parametrize(('kind', 'orientation'), [('PNG', 1), ('JPEG', 1), ('JPEG', 6), ('JPEG', 7)])
@pytest.mark.parametrize('size', [(97, 61), (50, 75), (500, 375), (20, 33), (1200, 900)])
def test_the_model_sees_the_stored_picture_as_it_sees_the_file_itself(kind, orientation, size, tmp_path):
    from trainer.decoding import decode_image

    options = {'quality': 95, 'subsampling': 0, 'exif': make_exif(orientation)} if kind == 'JPEG' else {}
    content = encode(draw(5, size), kind, **options)
    stored = convert_bytes(content, tmp_path, 32).content  # a PNG, so that only the resizing can differ
    difference = np.abs(decode_image(stored, 32).numpy().astype(int) - decode_image(content, 32).numpy())
    # TensorFlow decodes JPEGs with a faster and less exact transform, and large ones are not decoded whole here. Of a
    # picture that is cropped or turned differently the mean is over 20.
    assert difference.mean() < 4
    assert kind == 'JPEG' or difference.max() <= 1


def test_small_pictures_are_stored_without_loss(tmp_path):
    converted = convert_bytes(encode(draw(0, (32, 32)), 'BMP'), tmp_path, 32)
    assert converted.reason == 'BMP to PNG'
    np.testing.assert_array_equal(decode(converted.content), np.asarray(draw(0, (32, 32))))


def test_no_colour_profile_or_transparent_colour_is_stored(tmp_path):
    content = encode(draw(0), 'PNG', icc_profile=b'profile', transparency=(1, 2, 3))
    converted = convert_bytes(content, tmp_path, 20)
    with Image.open(io.BytesIO(converted.content)) as image:
        assert not {'icc_profile', 'transparency'} & set(image.info)


JPEG = encode(draw(0, (400, 300)), 'JPEG')
PNG = encode(draw(0), 'PNG')
REFUSED = {
    'empty': (b'', 'the file is empty'),
    'text': (b'<html>not found</html>', 'no whole JPEG, PNG, BMP, GIF or WEBP picture'),
    'TIFF': (encode(draw(0), 'TIFF'), 'no whole JPEG, PNG, BMP, GIF or WEBP picture'),
    'truncated JPEG': (JPEG[: len(JPEG) // 2], 'damaged: image file is truncated'),
    'truncated PNG': (PNG[: len(PNG) // 2], 'damaged: '),
    'only a header': (PNG[:40], 'no whole JPEG, PNG, BMP, GIF or WEBP picture'),
    'bomb': (declare_png(10_001, 10_000), 'too many pixels: 10001x10000, more than 100,000,000, not decoded'),
    'huge bomb': (declare_png(2**24, 2**24), 'too many pixels: more than 100,000,000, not decoded'),
    'thread': (encode(draw(0, (20_000, 1)), 'PNG'), 'too long and narrow: 20000x1'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_whole_picture_is_refused(name, tmp_path):
    content, reason = REFUSED[name]
    converted = convert_bytes(content, tmp_path)
    assert (converted.outcome, converted.content, converted.pixels) == ('refused', b'', b'')
    assert converted.reason.startswith(reason)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    converted = convert_image(tmp_path / 'gone.jpg', 40)
    assert (converted.outcome, converted.reason) == ('refused', 'cannot be read: No such file or directory')


def test_equal_pictures_in_different_files_have_equal_pixels(tmp_path):
    first, second = (convert_bytes(encode(draw(0), kind), tmp_path) for kind in ('PNG', 'BMP'))
    assert first.sha256 != second.sha256
    assert first.pixels == second.pixels
    assert first.pixels != convert_bytes(encode(draw(1), 'PNG'), tmp_path).pixels
