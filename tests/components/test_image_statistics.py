"""What images look like: the numbers, and that they are those of what the model sees."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from components.image_fit import fit_image
from components.image_statistics import PROPERTIES, measure_images


def encode(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def measure(image, size: int = 32) -> dict[str, float]:
    return dict(zip(PROPERTIES, measure_images([image], size)[0].tolist(), strict=True))


def draw(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_the_properties_are_those_of_the_gray_values():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = 200
    found = measure(encode(Image.fromarray(stripes)))
    assert (found['brightness'], found['contrast'], found['width'], found['height']) == (100, 100, 32, 32)
    assert found['sharpness'] > 10_000
    assert measure(stripes) == found, 'pixels are measured as an image with these pixels'


def decode(image: bytes, size: int = 32, *, is_stretched: bool = False) -> np.ndarray:
    """Decodes an image as the Transform graph does: uint8 [size, size, 3]."""
    import tensorflow as tf

    from trainer.decoding import decode_image

    return decode_image(tf.constant(image), size, is_stretched=is_stretched).numpy()


@pytest.mark.parametrize('contract_size', [32, 64])
@pytest.mark.parametrize('size', [(64, 48), (500, 375), (20, 24), (33, 300), (64, 64), (97, 64)])
def test_an_image_of_another_size_is_measured_as_the_model_sees_it(size, contract_size):
    image = encode(draw(*size))
    found, seen = measure(image, contract_size), measure(decode(image, contract_size), contract_size)
    assert (found['width'], found['height']) == size
    assert found['brightness'] == pytest.approx(seen['brightness'], abs=1)
    assert found['contrast'] == pytest.approx(seen['contrast'], abs=1)
    assert found['sharpness'] == pytest.approx(seen['sharpness'], rel=0.15)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_jpeg_is_measured_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encode(draw(90, 40), 'JPEG', quality=95, exif=exif)
    found, seen = measure(image), measure(decode(image))
    assert (found['width'], found['height']) == ((90, 40) if orientation < 5 else (40, 90))
    assert found['brightness'] == pytest.approx(seen['brightness'], abs=2), 'TensorFlow decodes JPEG less exactly'
    assert found['contrast'] == pytest.approx(seen['contrast'], abs=2)


@pytest.mark.parametrize('is_stretched', [False, True])
@pytest.mark.parametrize('size', [(64, 48), (48, 64), (97, 48), (48, 333), (48, 48), (31, 20)])
def test_the_pixels_are_those_of_the_graph(size, is_stretched):
    image = draw(*size)
    found = np.asarray(fit_image(image, 48, is_stretched=is_stretched)).astype(int)
    seen = decode(encode(image), 48, is_stretched=is_stretched)
    is_only_cut = min(size) == 48 and not is_stretched
    assert np.abs(found - seen).max() <= (0 if is_only_cut else 1)


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'P', 'I;16'])
def test_every_kind_of_image_is_measured_as_the_model_sees_it(mode):
    gray = draw(32, 32).convert('L')
    if mode == 'I;16':
        image = encode(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257))
    else:
        image = encode(gray.convert(mode))
    found, seen = measure(image), measure(decode(image))
    assert found['brightness'] == pytest.approx(seen['brightness'], abs=1)
    assert found['contrast'] == pytest.approx(seen['contrast'], abs=1)


def test_what_cannot_be_decoded_has_no_numbers_and_stops_nothing():
    whole = encode(draw(32, 32))
    measured = measure_images([whole, b'', b'no image', whole[: len(whole) // 2]], 32)
    assert np.isfinite(measured[0]).all()
    assert np.isnan(measured[1:]).all()
    assert measure_images([], 32).shape == (0, len(PROPERTIES))


def test_an_image_of_too_many_pixels_is_not_decoded():
    found = measure(encode(Image.new('1', (4_097, 4_096))))
    assert (found['width'], found['height']) == (4_097, 4_096)
    assert np.isnan([found['brightness'], found['contrast'], found['sharpness']]).all()


TEXT = b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0'  # the orientation as a text


@pytest.mark.parametrize(
    'exif', [b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0nonsense', b'Exif\0\0MM\0*\0\0\0\x08\0', TEXT]
)
def test_a_damaged_orientation_is_none(exif):
    image = draw(40, 32)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of Pillow, about what is damaged
        assert measure(encode(image, 'JPEG', exif=exif)) == measure(encode(image, 'JPEG'))
