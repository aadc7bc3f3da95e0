"""What images look like: the numbers, and that they are those of what the model sees."""

import io

import numpy as np
import pytest
from PIL import Image

from components import features
from components.image_statistics import PROPERTIES, measure_images


def encode(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def measure(image) -> dict[str, float]:
    return dict(zip(PROPERTIES, measure_images([image])[0].tolist(), strict=True))


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


@pytest.mark.parametrize('size', [(64, 48), (500, 375), (20, 24)])
def test_an_image_of_another_size_is_measured_as_the_model_sees_it(size):
    import tensorflow as tf

    from trainer.preprocessing import decode_image

    image = encode(draw(*size))
    found = measure(image)
    seen = measure(decode_image(tf.constant(image)).numpy())
    assert (found['width'], found['height']) == size
    assert found['brightness'] == pytest.approx(seen['brightness'], abs=1)
    assert found['contrast'] == pytest.approx(seen['contrast'], abs=1)
    assert found['sharpness'] == pytest.approx(seen['sharpness'], rel=0.1)


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'P', 'I;16'])
def test_every_kind_of_image_is_measured_as_the_model_sees_it(mode):
    import tensorflow as tf

    from trainer.preprocessing import decode_image

    gray = draw(32, 32).convert('L')
    if mode == 'I;16':
        image = encode(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257))
    else:
        image = encode(gray.convert(mode))
    found, seen = measure(image), measure(decode_image(tf.constant(image)).numpy())
    assert found['brightness'] == pytest.approx(seen['brightness'], abs=1)
    assert found['contrast'] == pytest.approx(seen['contrast'], abs=1)


def test_what_cannot_be_decoded_has_no_numbers_and_stops_nothing():
    whole = encode(draw(32, 32))
    measured = measure_images([whole, b'', b'no image', whole[: len(whole) // 2]])
    assert np.isfinite(measured[0]).all()
    assert np.isnan(measured[1:]).all()
    assert measure_images([]).shape == (0, len(PROPERTIES))


def test_an_image_of_too_many_pixels_is_not_decoded():
    found = measure(encode(Image.new('1', (4_097, 4_096))))
    assert (found['width'], found['height']) == (4_097, 4_096)
    assert np.isnan([found['brightness'], found['contrast'], found['sharpness']]).all()
    assert features.IMAGE_SHAPE == (32, 32, 3), 'the size to which every other image is resized'
