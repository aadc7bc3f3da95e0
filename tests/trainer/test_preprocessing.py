"""Decoding and preprocessing: the code, and the graph that Transform saves of it."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from PIL import Image

from tests.conftest import IMAGE_SIZE
from trainer.backbones import BACKBONES
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
def test_images_of_other_sizes_are_resized_to_the_contract_size(size):
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


def test_bytes_that_are_not_an_image_are_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match='Unknown image file format'):
        decode_image(b'not an image')


def test_the_default_preprocessing_is_resnet50s_caffe_mode():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[...] = (10, 20, 30)
    result = preprocess_images(tf.constant(image), 64).numpy()
    assert result.shape == (1, 64, 64, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0, 5, 5], [30 - 103.939, 20 - 116.779, 10 - 123.68], rtol=1e-5)


def apply_caffe(rgb):
    return rgb[..., ::-1] - np.array([103.939, 116.779, 123.68])


def apply_torch(rgb):
    return (rgb / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


FORMULAS = {
    'resnet50': apply_caffe,
    'resnet101': apply_caffe,
    'vgg16': apply_caffe,
    'inception_v3': lambda rgb: rgb / 127.5 - 1,
    'densenet121': apply_torch,
}


@pytest.mark.parametrize('backbone', BACKBONES)
def test_each_backbone_has_the_preprocessing_its_weights_were_trained_with(backbone, images):
    result = preprocess_images(tf.constant(images), 32, backbone=backbone)
    np.testing.assert_allclose(result, FORMULAS[backbone](images.astype('float64')), rtol=1e-4, atol=1e-4)


def test_upsampling_is_keras_upsampling2d(images):
    result = preprocess_images(tf.constant(images), 96, backbone='inception_v3', resize='upsampling').numpy()
    upsampled = keras.layers.UpSampling2D(3)(images.astype('float32'))
    np.testing.assert_allclose(result, np.array(upsampled) / 127.5 - 1, atol=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    ('backbone', 'image_size', 'resize'),
    [
        ('resnet50', IMAGE_SIZE, 'bilinear'),
        ('inception_v3', 75, 'bilinear'),
        ('densenet121', 64, 'upsampling'),
    ],
)
def test_the_saved_graph_computes_what_the_code_computes(backbone, image_size, resize, make_transform_graph, images):
    graph = make_transform_graph(backbone, image_size, resize)
    layer = tft.TFTransformOutput(str(graph)).transform_features_layer()
    result = layer({'image': tf.constant([encode(image) for image in images])})
    expected = preprocess_images(tf.constant(images), image_size, backbone=backbone, resize=resize)
    np.testing.assert_allclose(result['image_xf'], expected, rtol=1e-5, atol=1e-5)
    assert set(result) == {'image_xf'}
