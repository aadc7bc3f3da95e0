"""Weight averaging: the average that is put into a model, and the BatchNorm statistics that it gets."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import TrainingError
from trainer import train
from trainer.averaging import WeightAverage, choose_ema_momentum, estimate_statistics
from trainer.cluster import Cluster, Share
from trainer.config import TrainerConfig
from trainer.dataset import Split
from trainer.model import compile_model

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(3, 2, size=(160, 6)).astype('float32')
LABELS = RANDOM.integers(0, 10, len(ROWS))
SPLIT = Split(encoded=None, labels=LABELS, read_rows=lambda indices, epoch: tf.gather(ROWS, indices))


def make_model(dropout=0.0, ema_momentum=0.7) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dropout(dropout, seed=1)]
    norm = keras.layers.BatchNormalization(name='norm')
    model = keras.Sequential([*layers, norm, keras.layers.Dense(10, activation='softmax')])
    compile_model(model, TrainerConfig(optimizer='sgd', learning_rate=0.1), ema_momentum=ema_momentum)
    return model


def test_the_memory_is_a_tenth_of_the_steps_and_at_least_one_step():
    assert 1 / (1 - choose_ema_momentum(2810)) == pytest.approx(281)
    assert choose_ema_momentum(5) == 0


def test_the_average_is_put_in_and_the_trained_weights_are_put_back():
    model = make_model()
    expected = None
    for _ in range(5):
        model.train_on_batch(ROWS[:32], LABELS[:32])
        trained = [variable.numpy() for variable in model.trainable_variables]
        # The average begins at the weights after the first step.
        expected = trained if expected is None else [0.7 * a + 0.3 * b for a, b in zip(expected, trained, strict=True)]
    before = model.get_weights()
    average = WeightAverage(SPLIT, seed=0, batch_size=32)
    average.put_in(model, epoch=0)
    for variable, wanted, now in zip(model.trainable_variables, expected, trained, strict=True):
        np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5, atol=1e-6)
        assert np.abs(wanted - now).max() > 0
    inputs = ROWS @ model.layers[0].kernel.numpy() + model.layers[0].bias.numpy()
    np.testing.assert_allclose(model.get_layer('norm').moving_mean, inputs.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.get_layer('norm').moving_variance, inputs.var(axis=0), rtol=1e-4)
    average.take_out(model)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_statistics_are_those_of_training_with_dropout_and_nothing_else_changes():
    model = make_model(dropout=0.5)
    norm = model.get_layer('norm')
    before = [variable.numpy() for variable in model.variables]
    batches = [ROWS[start : start + 64] for start in range(0, len(ROWS), 64)]
    estimate_statistics(model, batches)
    inputs = ROWS @ model.layers[0].kernel.numpy()
    # Dropout of one half keeps the mean, and adds the mean square to the variance.
    expected = 2 * (inputs**2).mean(axis=0) - inputs.mean(axis=0) ** 2
    np.testing.assert_allclose(norm.moving_variance, expected, rtol=0.3)
    assert norm.moving_variance.numpy().mean() == pytest.approx(expected.mean(), rel=0.1)
    assert norm.momentum == 0.99
    statistics = (norm.moving_mean.path, norm.moving_variance.path)
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value) == (variable.path not in statistics), variable.path


def test_every_batch_has_a_dropout_mask_of_its_own():
    """With one mask for all of them, the variance over equal rows would be zero or the whole."""
    model = make_model(dropout=0.5)
    estimate_statistics(model, [ROWS[:1]] * 200)
    inputs = (ROWS[:1] @ model.layers[0].kernel.numpy())[0]
    np.testing.assert_allclose(model.get_layer('norm').moving_variance, inputs**2, rtol=0.1)


def test_frozen_batchnorms_keep_their_statistics():
    model = make_model()
    model.get_layer('norm').trainable = False
    estimate_statistics(model, [ROWS])
    np.testing.assert_array_equal(model.get_layer('norm').moving_mean, np.zeros(8))


def test_several_workers_are_refused(monkeypatch):
    cluster = Cluster(tf.distribute.get_strategy(), Share(workers=2, worker=0, replicas=2))
    monkeypatch.setattr(train, 'join_cluster', lambda strategy, timeout_s: cluster)
    arguments = types.SimpleNamespace(
        custom_config={'trainer': {'weight_average': 'ema', 'precision': 'float32'}, 'export': {}},
        hyperparameters=None,
        transform_graph_path='unused',
        train_files=[],
        eval_files=[],
        base_model=None,
        model_run_dir='/unused/model_run/1',
    )
    with pytest.raises(TrainingError, match=r'weight_average=ema works on one machine only, .* the 2 workers'):
        train.run_fn(arguments)
