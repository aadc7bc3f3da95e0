"""What the report shows of the network: Grad-CAM where the class is decided, and inputs in their colours."""

import io
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features
from pipeline.report.network import compute_cams, show_inputs
from trainer.config import TrainerConfig
from trainer.model import add_head

RED, GREEN = 3, 7  # the classes that a red and a green patch stand for


def build_patch_model(pooling: str, seed: int = 0) -> keras.Model:
    """Builds a network of one convolution and the pipeline's head, and trains it to see which patch an image has."""
    keras.utils.set_random_seed(seed)
    config = TrainerConfig(pooling=pooling, head_units=(), head_batchnorm=False)
    inputs = keras.Input((32, 32, 3))
    channels = keras.layers.Conv2D(8, 4, strides=4, activation='relu')(inputs)
    model = keras.Model(inputs, add_head(channels, config))
    random = np.random.default_rng(seed)
    images, labels = random.normal(0, 0.05, (200, 32, 32, 3)), np.where(np.arange(200) % 2, RED, GREEN)
    for image, label in zip(images, labels, strict=True):
        row, column = random.integers(0, 7, 2) * 4
        image[row : row + 4, column : column + 4, 0 if label == RED else 1] += 1
    model.compile(keras.optimizers.Adam(0.02), 'sparse_categorical_crossentropy', metrics=['accuracy'])
    history = model.fit(images, labels, epochs=25, verbose=0)
    assert history.history['accuracy'][-1] > 0.98
    return model


@pytest.mark.parametrize('pooling', ['average', 'flatten'])
def test_grad_cam_lights_up_where_a_planted_patch_decides_the_class(pooling):
    image = np.zeros((32, 32, 3), np.float32)
    image[4:8, 4:8, 0] = 1  # red, in the cell (1, 1) of the feature map
    image[24:28, 16:20, 1] = 1  # green, in the cell (6, 4)
    red, green = compute_cams(build_patch_model(pooling), np.stack([image, image]), [RED, GREEN])
    assert (red.shape, red.max(), green.max()) == ((8, 8), 1, 1)
    assert np.unravel_index(red.argmax(), red.shape) == (1, 1)
    assert np.unravel_index(green.argmax(), green.shape) == (6, 4)
    assert red[1, 1] > 2 * red[6, 4]
    assert green[6, 4] > 2 * green[1, 1]


@pytest.mark.parametrize('backbone', ['resnet50', 'vgg16', 'inception_v3'])  # 'caffe' twice, and 'tf'
def test_the_inputs_are_shown_in_the_colours_of_the_images(backbone, tmp_path, monkeypatch):
    from trainer.preprocessing import preprocessing_fn

    def transform(_: Path, encoded: list[bytes]) -> np.ndarray:
        raw = {features.IMAGE_KEY: tf.constant(list(encoded)), features.LABEL_KEY: tf.zeros(len(encoded), tf.int64)}
        config = {'image_size': 64, 'backbone': backbone, 'resize': 'upsampling'}
        return preprocessing_fn(raw, config)[features.IMAGE_XF_KEY].numpy()

    monkeypatch.setattr('pipeline.report.network.preprocess_images', transform)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'PNG')
    (shown,) = show_inputs(tmp_path, [out.getvalue()])
    np.testing.assert_array_equal(shown, pixels.repeat(2, 0).repeat(2, 1))
