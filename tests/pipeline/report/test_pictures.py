"""The pictures of the page: small, upright, and of what the network saw."""

import base64
import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.report.pictures import is_image, make_overlay, make_thumbnail


def decode(uri: str) -> Image.Image:
    kind, _, data = uri.partition(';base64,')
    assert kind == 'data:image/jpeg'
    return Image.open(io.BytesIO(base64.b64decode(data)))


def encode(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ('size', 'shown'), [((32, 32), (32, 32)), ((256, 256), (96, 96)), ((384, 256), (96, 64)), ((40, 4000), (1, 96))]
)
def test_a_large_picture_is_shrunk_and_a_small_one_is_not_enlarged(size, shown):
    assert decode(make_thumbnail(encode(Image.new('RGB', size), 'PNG'))).size == shown


def test_a_photograph_is_upright_as_the_network_sees_it():
    photograph = Image.new('RGB', (400, 200), 'red')
    photograph.paste('blue', (200, 0, 400, 200))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright
    thumbnail = decode(make_thumbnail(encode(photograph, 'JPEG', exif=exif)))
    assert thumbnail.size == (48, 96)
    (top, _, _), (_, _, bottom) = thumbnail.getpixel((24, 10)), thumbnail.getpixel((24, 86))
    assert min(top, bottom) > 240


def test_the_heat_map_lies_over_what_the_network_saw():
    cam = np.zeros((7, 7), np.float32)
    cam[:, :3] = 1
    overlay = np.asarray(decode(make_overlay(np.zeros((224, 224, 3), np.uint8), cam)), int)
    assert overlay.shape == (96, 96, 3)
    assert overlay[:, :20].mean() > overlay[:, -20:].mean() + 100


def test_what_is_no_image_has_no_picture():
    assert make_thumbnail(b'no image') == ''
    assert not is_image(b'no image')
