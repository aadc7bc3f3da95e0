"""The network: its layers, which of them are trained, its loss and its optimizers."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.conftest import IMAGE_SIZE
from trainer.config import TrainerConfig
from trainer.model import (
    build_backbone,
    build_model,
    choose_batchnorm_momentum,
    compile_model,
    measure_stages,
    set_batchnorm_momentum,
)

CONFIG = TrainerConfig(image_size=IMAGE_SIZE, weights='none')


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return build_model(CONFIG, build_backbone(CONFIG), 10)


def test_the_backbone_is_resnet50_without_top():
    backbone = build_backbone(TrainerConfig(weights='none'))
    assert len(backbone.layers) == 175
    assert backbone.count_params() == 23_587_712
    assert backbone.output_shape == (None, 7, 7, 2048)


def test_only_the_last_stage_and_the_head_are_trained(model):
    trained = {layer.name.split('_')[0] for layer in model.layers if layer.trainable}
    frozen = {layer.name.split('_')[0] for layer in model.layers if not layer.trainable}
    assert trained == {'conv5', 'head', 'probabilities'}
    assert {'conv1', 'conv2', 'conv3', 'conv4'} <= frozen
    assert not frozen & trained


def test_the_stages_have_all_parameters_and_say_what_is_trained(model):
    stages = {stage.name: stage for stage in measure_stages(model)}
    assert list(stages) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'head']
    assert sum(stage.parameters for stage in stages.values()) == model.count_params()
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert sum(stage.trained for stage in stages.values()) == trained
    assert [name for name, stage in stages.items() if stage.trained] == ['conv5', 'head']
    assert stages['conv1'].parameters == 7 * 7 * 3 * 64 + 64 + 4 * 64


def test_the_head_is_that_of_the_recipe(model):
    names = [layer.name for layer in model.layers]
    head = [type(layer).__name__ for layer in model.layers[names.index('head_flatten') :]]
    block = ['Dense', 'Dropout', 'BatchNormalization']
    assert head == ['Flatten', 'BatchNormalization', *block, *block, *block, 'Dense']
    assert [model.get_layer(f'head_{n}_dense').units for n in (1, 2, 3)] == [256, 128, 64]
    assert {model.get_layer(f'head_{n}_dropout').rate for n in (1, 2, 3)} == {0.5}
    assert model.output_shape == (None, 10)


@pytest.mark.slow
def test_frozen_batchnorms_keep_their_statistics_and_trained_ones_move(model):
    compile_model(model, CONFIG)
    before = [model.get_layer(name).moving_mean.numpy() for name in ('conv4_block6_3_bn', 'conv5_block1_1_bn')]
    images = np.random.default_rng(0).normal(size=(8, IMAGE_SIZE, IMAGE_SIZE, 3)).astype('float32')
    model.train_on_batch(images, np.arange(8))
    after = [model.get_layer(name).moving_mean.numpy() for name in ('conv4_block6_3_bn', 'conv5_block1_1_bn')]
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 0


@pytest.mark.slow
def test_a_step_changes_only_the_trained_weights(model):
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


@pytest.mark.parametrize(
    ('train_from', 'trained'), [('none', set()), ('auto', {'conv5'}), ('conv4', {'conv4', 'conv5'})]
)
def test_train_from_moves_the_border(train_from, trained):
    backbone = build_backbone(CONFIG)
    build_model(TrainerConfig(image_size=IMAGE_SIZE, train_from=train_from), backbone, 10)
    assert {layer.name.split('_')[0] for layer in backbone.layers if layer.trainable} == trained


def test_an_unknown_train_from_is_refused():
    with pytest.raises(ValueError, match=r"such as .*conv5.*Received: 'conv9'"):
        build_model(TrainerConfig(image_size=IMAGE_SIZE, train_from='conv9'), build_backbone(CONFIG), 10)


def test_the_momentum_is_that_of_every_trained_batchnorm_and_of_no_frozen_one():
    model = build_model(TrainerConfig(image_size=IMAGE_SIZE), build_backbone(CONFIG), 10)
    set_batchnorm_momentum(model, 0.5)
    batchnorms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = {(layer.trainable, layer.momentum) for layer in batchnorms}
    assert momenta == {(True, 0.5), (False, 0.99)}


def test_the_momentum_fits_the_number_of_steps_unless_it_is_set():
    config = TrainerConfig()
    assert choose_batchnorm_momentum(config, steps=1407) == 0.99
    for steps in (1, 18, 281):
        assert choose_batchnorm_momentum(config, steps) ** steps == pytest.approx(0.01)
    assert choose_batchnorm_momentum(TrainerConfig(batchnorm_momentum=0.9), steps=18) == 0.9


def test_the_loss_is_on_the_probabilities_that_the_head_returns(model):
    """TFX's old CIFAR-10 example used a loss on probabilities for logits in its second phase."""
    compile_model(model, CONFIG)
    images = np.random.default_rng(0).normal(size=(4, IMAGE_SIZE, IMAGE_SIZE, 3)).astype('float32')
    labels = np.array([1, 2, 3, 4])
    probabilities = model.predict(images, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    expected = -np.log(probabilities[np.arange(4), labels]).mean()
    assert model.evaluate(images, labels, verbose=0)[0] == pytest.approx(expected, rel=1e-4)


def test_the_optimizer_is_that_of_the_recipe(model):
    compile_model(model, CONFIG)
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-5)


def test_average_pooling_gives_the_head_one_value_for_each_channel():
    config = dataclasses.replace(CONFIG, pooling='average')
    backbone = build_backbone(CONFIG)
    model = build_model(config, backbone, 10)
    assert model.get_layer('head_average').output.shape == (None, 2048)
    wide = build_model(
        dataclasses.replace(CONFIG, image_size=64), build_backbone(dataclasses.replace(CONFIG, image_size=64)), 10
    )
    assert wide.get_layer('head_flatten').output.shape == (None, 2 * 2 * 2048)


def test_the_head_can_be_built_without_batchnorm():
    model = build_model(dataclasses.replace(CONFIG, head_batchnorm=False), build_backbone(CONFIG), 10)
    head = [layer.name for layer in model.layers if layer.name.startswith('head')]
    assert head == ['head_flatten', *(f'head_{n}_{part}' for n in (1, 2, 3) for part in ('dense', 'dropout'))]


def make_small_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(10, activation='softmax')])


@pytest.mark.parametrize(
    ('name', 'kind', 'options'),
    [
        ('rmsprop', keras.optimizers.RMSprop, {}),
        ('sgd', keras.optimizers.SGD, {'momentum': 0.7}),
        ('adam', keras.optimizers.Adam, {}),
        ('adamw', keras.optimizers.AdamW, {'weight_decay': 0.02}),
    ],
)
def test_every_optimizer_is_keras_own_with_the_configured_settings_and_lowers_the_loss(name, kind, options):
    model = make_small_model()
    compile_model(model, TrainerConfig(optimizer=name, learning_rate=0.03, momentum=0.7, weight_decay=0.02))
    assert type(model.optimizer) is kind
    settings = model.optimizer.get_config()
    assert {key: settings[key] for key in options} == options
    assert settings['learning_rate'] == pytest.approx(0.03)
    rows = np.eye(4, dtype='float32')
    losses = [model.train_on_batch(rows, np.arange(4))[0] for _ in range(10)]
    assert losses[-1] < losses[0]


def test_weight_decay_shrinks_kernels_but_not_biases():
    model = make_small_model()
    compile_model(model, TrainerConfig(optimizer='adamw', learning_rate=0.1, weight_decay=0.5))
    kernel, bias = model.trainable_variables
    bias.assign(np.ones(10))
    before = kernel.numpy()
    model.optimizer.apply([np.zeros((4, 10), 'float32'), np.zeros(10, 'float32')], [kernel, bias])
    np.testing.assert_allclose(kernel.numpy(), before * (1 - 0.1 * 0.5), rtol=1e-5)
    np.testing.assert_array_equal(bias.numpy(), np.ones(10))


def test_a_schedule_replaces_the_constant_learning_rate():
    model = make_small_model()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.25])
    compile_model(model, TrainerConfig(optimizer='sgd'), learning_rate=schedule)
    rates = []
    for _ in range(3):
        rates.append(float(model.optimizer.learning_rate))
        model.train_on_batch(np.ones((2, 4), 'float32'), np.zeros(2))
    assert rates == [0.5, 0.5, 0.25]


def test_label_smoothing_spreads_its_share_over_all_classes_and_the_file_loads_with_keras_alone(tmp_path):
    model = make_small_model()
    compile_model(model, TrainerConfig(label_smoothing=0.1))
    rows, labels = np.eye(4, dtype='float32'), np.array([3, 1, 2, 0])
    one_hot = np.eye(10, dtype='float32')[labels]
    loss, accuracy = model.evaluate(rows, one_hot, verbose=0)
    probabilities = model.predict(rows, verbose=0)
    assert accuracy == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    log = np.log(probabilities)
    assert loss == pytest.approx(-(0.9 * log[np.arange(4), labels] + 0.1 * log.mean(axis=1)).mean(), rel=1e-5)
    model.save(tmp_path / 'model.keras')
    script = f'import keras; print(keras.models.load_model({str(tmp_path / "model.keras")!r}).loss.label_smoothing)'
    # In a folder without this project, isolated from its environment variables.
    process = subprocess.run([sys.executable, '-I', '-c', script], cwd=tmp_path, capture_output=True, text=True)
    assert process.stdout.splitlines()[-1:] == ['0.1'], process.stderr[-500:]


def test_the_loss_of_mixed_labels_is_the_mixture_of_the_losses_of_both_classes():
    model = make_small_model()
    compile_model(model, TrainerConfig(mix='mixup'))
    rows, mixed = np.eye(2, 4, dtype='float32'), np.zeros((2, 10), 'float32')
    mixed[0, [3, 5]], mixed[1, [1, 2]] = (0.7, 0.3), (0.4, 0.6)
    log = np.log(model.predict(rows, verbose=0))
    expected = -np.mean([0.7 * log[0, 3] + 0.3 * log[0, 5], 0.4 * log[1, 1] + 0.6 * log[1, 2]])
    loss, accuracy = model.evaluate(rows, mixed, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == pytest.approx((log.argmax(axis=1) == [3, 2]).mean())


def test_without_smoothing_the_loss_is_keras_own():
    """So that the .keras file loads where this package is not installed."""
    model = make_small_model()
    compile_model(model, CONFIG)
    assert type(model.loss) is keras.losses.SparseCategoricalCrossentropy
