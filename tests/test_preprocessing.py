import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from PIL import Image

from tests.conftest import IMAGE_SIZE
from trainer.preprocessing import decode_image, preprocess_images


def encode(image: np.ndarray, kind: str = 'PNG') -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def test_png_of_the_contract_size_is_decoded_exactly(images):
    np.testing.assert_array_equal(decode_image(encode(images[0])).numpy(), images[0])


def test_jpeg_is_decoded_nearly(images):
    smooth = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    decoded = decode_image(encode(smooth, 'JPEG')).numpy()
    assert np.abs(decoded.astype(int) - smooth).max() <= 3


def test_grey_images_become_rgb():
    grey = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    np.testing.assert_array_equal(decode_image(encode(grey)).numpy(), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize('size', [(64, 64), (300, 200), (8, 8), (1, 40)])
def test_other_sizes_are_brought_to_the_contracts(size):
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = 250
    decoded = decode_image(encode(image)).numpy()
    assert decoded.shape == (32, 32, 3)
    assert decoded.dtype == np.uint8
    assert (decoded == [250, 0, 0]).all()


def test_a_large_image_is_averaged_not_sampled(images):
    enlarged = np.repeat(np.repeat(images[0], 4, axis=0), 4, axis=1)
    decoded = decode_image(encode(enlarged)).numpy()
    assert np.abs(decoded.astype(int) - images[0]).mean() < 12


def test_what_is_no_image_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(b'no image')


def test_preprocessing_is_resnet50s_caffe_mode():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[...] = (10, 20, 30)
    result = preprocess_images(tf.constant(image), 64).numpy()
    assert result.shape == (1, 64, 64, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0, 5, 5], [30 - 103.939, 20 - 116.779, 10 - 123.68], rtol=1e-5)


def test_the_saved_graph_gives_what_the_code_gives(transform_graph, images):
    layer = tft.TFTransformOutput(str(transform_graph)).transform_features_layer()
    result = layer({'image': tf.constant([encode(image) for image in images])})
    np.testing.assert_allclose(result['image_xf'], preprocess_images(tf.constant(images), IMAGE_SIZE), rtol=1e-5)
    assert set(result) == {'image_xf'}
