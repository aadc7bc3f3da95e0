"""The graph in two parts: it classifies as Keras does, and Grad-CAM lights up where the class is decided."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.classifier_graph import ClassifierGraph
from trainer.config import TrainerConfig
from trainer.inference_graph import InferenceGraph
from trainer.model import add_head, build_backbone, build_model

RED, GREEN = 3, 7  # the classes that a red and a green patch stand for


def build_patch_model(pooling: str, seed: int = 0) -> keras.Model:
    """Builds a network of one convolution and the pipeline's head, and trains it to see which patch an image has."""
    keras.utils.set_random_seed(seed)
    config = TrainerConfig(pooling=pooling, head_units=(), head_batchnorm=False)
    inputs = keras.Input((32, 32, 3))
    channels = keras.layers.Conv2D(8, 4, strides=4, activation='relu')(inputs)
    model = keras.Model(inputs, add_head(channels, config, 10))
    random = np.random.default_rng(seed)
    images, labels = random.normal(0, 0.05, (200, 32, 32, 3)), np.where(np.arange(200) % 2, RED, GREEN)
    for image, label in zip(images, labels, strict=True):
        row, column = random.integers(0, 7, 2) * 4
        image[row : row + 4, column : column + 4, 0 if label == RED else 1] += 1
    model.compile(keras.optimizers.Adam(0.02), 'sparse_categorical_crossentropy', metrics=['accuracy'])
    history = model.fit(images, labels, epochs=25, verbose=0)
    assert history.history['accuracy'][-1] > 0.98
    return model


@pytest.fixture(scope='module', params=['average', 'flatten'])
def patch_model(request) -> keras.Model:
    return build_patch_model(request.param)


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('as_constants', [True, False])
def test_grad_cam_lights_up_where_a_planted_patch_decides_the_class(patch_model, precision, as_constants):
    image = np.zeros((32, 32, 3), np.float32)
    image[4:8, 4:8, 0] = 1  # red, in the cell (1, 1) of the feature map
    image[24:28, 16:20, 1] = 1  # green, in the cell (6, 4)
    graph = ClassifierGraph(patch_model, precision, as_constants=as_constants)
    probabilities, maps = graph.explain(np.stack([image] * 3), np.array([RED, GREEN, -1]))
    red, green, predicted = maps.numpy()
    assert (red.shape, red.max(), green.max()) == ((8, 8), 1, 1)
    assert np.unravel_index(red.argmax(), red.shape) == (1, 1)
    assert np.unravel_index(green.argmax(), green.shape) == (6, 4)
    assert red[1, 1] > 2 * red[6, 4]
    assert green[6, 4] > 2 * green[1, 1]
    np.testing.assert_array_equal(predicted, red if probabilities[2].numpy().argmax() == RED else green)


@pytest.mark.slow
def test_the_parts_together_are_the_whole_network():
    keras.utils.set_random_seed(0)
    config = TrainerConfig(backbone='vgg16', image_size=64, head_units=(16,), weights='none')
    model = build_model(config, build_backbone(config), 10)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 50, bias])  # so that images get different probabilities
    images = tf.random.stateless_normal([3, 64, 64, 3], (0, 0), stddev=60)
    for precision, tolerance in (('float32', 1e-5), ('bfloat16', 0.02)):
        graph = ClassifierGraph(model, precision)
        whole = InferenceGraph(model, precision)(images).numpy()
        assert np.ptp(whole, axis=0).max() > 0.1
        np.testing.assert_allclose(graph(images), whole, atol=tolerance)
        probabilities, maps = graph.explain(images, tf.constant([0, -1, 9], tf.int64))
        np.testing.assert_allclose(probabilities, whole, atol=tolerance)
        assert maps.shape == (3, 2, 2)
        assert set(maps.numpy().max(axis=(1, 2))) <= {0, 1}
