import keras
import numpy as np
import pytest

from tests.conftest import IMAGE_SIZE
from trainer.config import TrainerConfig
from trainer.model import build_backbone, build_model, compile_model

CONFIG = TrainerConfig(image_size=IMAGE_SIZE, weights='none')


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return build_model(CONFIG, build_backbone(IMAGE_SIZE))


def test_the_backbone_is_resnet50_without_top():
    backbone = build_backbone(224)
    assert len(backbone.layers) == 175
    assert backbone.count_params() == 23_587_712
    assert backbone.output_shape == (None, 7, 7, 2048)


def test_only_the_last_stage_and_the_head_are_trained(model):
    trained = {layer.name.split('_')[0] for layer in model.layers if layer.trainable}
    frozen = {layer.name.split('_')[0] for layer in model.layers if not layer.trainable}
    assert trained == {'conv5', 'head', 'probabilities'}
    assert {'conv1', 'conv2', 'conv3', 'conv4'} <= frozen
    assert not frozen & trained


def test_the_head_is_the_recipes(model):
    names = [layer.name for layer in model.layers]
    head = [type(layer).__name__ for layer in model.layers[names.index('head_flatten') :]]
    block = ['Dense', 'Dropout', 'BatchNormalization']
    assert head == ['Flatten', 'BatchNormalization', *block, *block, *block, 'Dense']
    assert [model.get_layer(f'head_{n}_dense').units for n in (1, 2, 3)] == [256, 128, 64]
    assert {model.get_layer(f'head_{n}_dropout').rate for n in (1, 2, 3)} == {0.5}
    assert model.output_shape == (None, 10)


def test_frozen_batchnorms_keep_their_statistics_and_trained_ones_move(model):
    compile_model(model, CONFIG)
    before = [model.get_layer(name).moving_mean.numpy() for name in ('conv4_block6_3_bn', 'conv5_block1_1_bn')]
    images = np.random.default_rng(0).normal(size=(8, IMAGE_SIZE, IMAGE_SIZE, 3)).astype('float32')
    model.train_on_batch(images, np.arange(8))
    after = [model.get_layer(name).moving_mean.numpy() for name in ('conv4_block6_3_bn', 'conv5_block1_1_bn')]
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 0


def test_a_step_changes_just_the_trained_weights(model):
    compile_model(model, CONFIG)
    before = {weight.path: weight.numpy() for weight in model.weights}
    images = np.random.default_rng(0).normal(size=(8, IMAGE_SIZE, IMAGE_SIZE, 3)).astype('float32')
    model.train_on_batch(images, np.arange(8))
    changed = {
        path.split('/')[0].split('_')[0]
        for path, value in before.items()
        for weight in model.weights
        if weight.path == path and not np.array_equal(weight.numpy(), value)
    }
    assert changed == {'conv5', 'head', 'probabilities'}


@pytest.mark.parametrize(('train_from', 'trained'), [('none', set()), ('conv4', {'conv4', 'conv5'})])
def test_train_from_moves_the_border(train_from, trained):
    backbone = build_backbone(IMAGE_SIZE)
    build_model(TrainerConfig(image_size=IMAGE_SIZE, train_from=train_from), backbone)
    assert {layer.name.split('_')[0] for layer in backbone.layers if layer.trainable} == trained


def test_an_unknown_train_from_is_refused():
    with pytest.raises(ValueError, match=r"such as .*conv5.*Received: 'conv9'"):
        build_model(TrainerConfig(image_size=IMAGE_SIZE, train_from='conv9'), build_backbone(IMAGE_SIZE))


def test_the_momentum_reaches_every_trained_batchnorm_and_no_frozen_one():
    config = TrainerConfig(image_size=IMAGE_SIZE, batchnorm_momentum=0.5)
    model = build_model(config, build_backbone(IMAGE_SIZE))
    batchnorms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = {(layer.trainable, layer.momentum) for layer in batchnorms}
    assert momenta == {(True, 0.5), (False, 0.99)}


def test_the_loss_takes_the_probabilities_the_head_gives(model):
    """TFX's old CIFAR-10 example took probabilities for logits in one phase and the other way round in the next."""
    compile_model(model, CONFIG)
    images = np.random.default_rng(0).normal(size=(4, IMAGE_SIZE, IMAGE_SIZE, 3)).astype('float32')
    labels = np.array([1, 2, 3, 4])
    probabilities = model.predict(images, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    expected = -np.log(probabilities[np.arange(4), labels]).mean()
    assert model.evaluate(images, labels, verbose=0)[0] == pytest.approx(expected, rel=1e-4)


def test_the_optimizer_is_the_recipes(model):
    compile_model(model, CONFIG)
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-5)
