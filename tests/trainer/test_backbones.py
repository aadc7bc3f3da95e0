"""Every backbone: the numbers in its table line, and how it is cut into trunk and top."""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
import pytest

from trainer.backbones import BACKBONES, get_builder
from trainer.config import TrainerConfig
from trainer.model import build_backbone, build_model, compile_model, freeze_below, split_at_border

QUICK = ('vgg16',)  # backbones that are built and traced quickly; with the others a test takes several seconds
# The first part of the names of the trained layers that have weights.
TRAINED = {
    'resnet50': {'conv5'},
    'resnet101': {'conv5'},
    'vgg16': {'block5'},
    'inception_v3': {'conv2d', 'batch'},
    'densenet121': {'conv5', 'bn'},
}


class Built(NamedTuple):
    config: TrainerConfig
    backbone: keras.Model
    model: keras.Model
    images: np.ndarray


@pytest.fixture(
    scope='module', params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def built(request) -> Built:
    """A backbone at its smallest size under a small head, its last stage trained."""
    keras.utils.set_random_seed(0)
    size = BACKBONES[request.param].smallest_size
    config = TrainerConfig(backbone=request.param, image_size=size, head_units=(8,), learning_rate=1e-3)
    backbone = build_backbone(config)
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype('float32')
    return Built(config, backbone, build_model(config, backbone, 10), images)


@pytest.mark.parametrize(
    ('name', 'size'),
    [('resnet50', 224), ('resnet101', 224), ('vgg16', 224), ('inception_v3', 299), ('densenet121', 224)],
)
def test_each_backbone_has_its_own_default_image_size(name, size):
    assert TrainerConfig(backbone=name).get_image_size() == size
    assert TrainerConfig(backbone=name, image_size=96).get_image_size() == 96


@pytest.mark.parametrize('name', BACKBONES)
def test_keras_refuses_images_below_the_smallest_size(name):
    smaller = BACKBONES[name].smallest_size - 1
    with pytest.raises(ValueError, match='at least'):
        get_builder(name)(include_top=False, weights=None, input_shape=(smaller, smaller, 3))


def test_the_tables_parameters_and_channels_are_right(built):
    row = BACKBONES[built.config.backbone]
    assert built.backbone.count_params() == row.parameters
    assert built.backbone.output_shape[-1] == row.channels
    assert built.model.name == f'{built.config.backbone}_classifier'


def test_only_the_last_stage_is_trained(built):
    trained = [layer for layer in built.backbone.layers if layer.trainable and layer.weights]
    assert {layer.name.split('_')[0] for layer in trained} == TRAINED[built.config.backbone]
    frozen = [layer for layer in built.backbone.layers if not layer.trainable and layer.weights]
    assert len(frozen) > len(trained)
    if built.config.backbone == 'inception_v3':  # mixed9 and mixed10: nine convolutions each, with their BatchNorms
        assert len(trained) == 36


def test_trunk_and_top_together_are_the_model(built):
    trunk, top = split_at_border(built.model)
    np.testing.assert_array_equal(built.model(built.images), top(trunk(built.images)))
    assert trunk.trainable_weights == []
    assert {weight.path for weight in top.weights} == {
        weight.path for layer in built.model.layers if layer.trainable for weight in layer.weights
    }


def test_training_the_top_trains_the_model_and_does_not_change_the_trunk(built):
    trunk, top = split_at_border(built.model)
    compile_model(top, built.config)
    before = [weight.numpy() for weight in built.model.trainable_weights]
    frozen = [weight.numpy() for weight in trunk.weights]
    top.train_on_batch(trunk(built.images), np.arange(4))
    after = [weight.numpy() for weight in built.model.trainable_weights]
    assert sum(not np.array_equal(*pair) for pair in zip(before, after, strict=True)) > len(before) // 2
    assert all(np.array_equal(value, weight.numpy()) for value, weight in zip(frozen, trunk.weights, strict=True))
    np.testing.assert_array_equal(built.model(built.images), top(trunk(built.images)))


def test_with_the_whole_backbone_frozen_the_trunk_includes_the_pooling(built):
    config = dataclasses.replace(built.config, train_from='none', pooling='average')
    try:
        model = build_model(config, built.backbone, 10)
        trunk, top = split_at_border(model)
    finally:
        freeze_below(built.backbone, built.config.get_train_from())
    assert trunk.output_shape == (None, BACKBONES[config.backbone].channels)
    assert [layer.name for layer in top.layers[1:]][:2] == ['head_input_bn', 'head_1_dense']
    np.testing.assert_array_equal(model(built.images), top(trunk(built.images)))


@pytest.mark.parametrize('name', ['vgg16', pytest.param('inception_v3', marks=pytest.mark.slow)])
def test_a_model_that_was_cut_can_still_be_saved_and_loaded(name, tmp_path):
    """Cutting adds nodes to the graph that the layers remember, and Keras walks that graph when it saves."""
    size = BACKBONES[name].smallest_size
    config = TrainerConfig(backbone=name, image_size=size, head_units=(8,))
    model = build_model(config, build_backbone(config), 10)
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype('float32')
    expected = model.predict(images, verbose=0)
    split_at_border(model)
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    again, _ = split_at_border(model)
    assert again.layers[-1] is split_at_border(model)[0].layers[-1]


def test_without_frozen_layers_there_is_no_trunk():
    config = TrainerConfig(backbone='vgg16', image_size=32, train_from='all')
    model = build_model(config, build_backbone(config), 10)
    assert all(layer.trainable for layer in model.layers)
    trunk, top = split_at_border(model)
    assert trunk is None
    assert top is model


def test_a_border_crossed_by_more_than_one_tensor_is_refused():
    config = TrainerConfig(image_size=32, train_from='conv5_block1_1_conv')
    model = build_model(config, build_backbone(config), 10)
    with pytest.raises(ValueError, match=r'outputs of conv4_block6_out, conv5_block1_0_bn all enter .* whole stage'):
        split_at_border(model)


@pytest.mark.slow
@pytest.mark.parametrize('train_from', ['conv2d', 'mixed11'])
def test_a_layer_name_that_keras_numbered_is_refused_and_the_stages_are_listed(train_from):
    """In a process that has built a model before, conv2d_90 is a different layer."""
    config = TrainerConfig(backbone='inception_v3', image_size=75, train_from=train_from)
    with pytest.raises(ValueError, match=rf"of inception_v3, such as mixed0, .*mixed10\. Received: '{train_from}'"):
        build_model(config, build_backbone(config), 10)
