"""One phase of training: interrupted and resumed, stopped early, and what it records."""

import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import TrainingError
from trainer import fit
from trainer.checkpoint import CheckpointFolder
from trainer.cluster import Cluster, Share
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, Split
from trainer.fit import (
    Phase,
    Recorder,
    compute_class_weights,
    find_best_epoch,
    fit_phase,
    has_stalled,
    make_schedule,
)
from trainer.model import compile_model

ROWS = 64
FEATURES = np.random.default_rng(0).normal(size=(ROWS, 6)).astype('float32')
LABELS = np.random.default_rng(1).integers(0, 10, ROWS)
CONFIG = TrainerConfig(learning_rate=0.01, batch_size=16, epochs=4, seed=3)
AVERAGED = dataclasses.replace(CONFIG, weight_average='ema')


def make_model(config: TrainerConfig, learning_rate=None) -> keras.Model:
    keras.utils.set_random_seed(config.seed)
    layers = [keras.Input((6,)), keras.layers.Dense(16), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation='softmax')])
    compile_model(model, config, learning_rate, 0.8 if config.weight_average == 'ema' else None)
    return model


def fit_model(folder, config=CONFIG, epochs=None, model=None, val_labels=LABELS, features=FEATURES, fill=lambda: None):
    model = model or make_model(config)
    table = tf.constant(features)
    train, val = (
        Split(encoded=None, labels=labels, read_rows=lambda indices, epoch: tf.gather(table, indices))
        for labels in (LABELS, val_labels)
    )
    phase = Phase('training', epochs or config.epochs, config.learning_rate)
    paths = {'checkpoint_dir': str(folder / 'checkpoints'), 'log_dir': str(folder / 'logs')}
    cluster = Cluster(tf.distribute.get_strategy(), Share())
    return model, fit_phase(model, config, phase, train, val, cluster=cluster, fill=fill, **paths)


def strip_times(history):
    return [{key: value for key, value in entry.items() if key not in ('seconds', 'images_per_s')} for entry in history]


class Kill(Exception):
    pass


def kill_in_epoch(monkeypatch, number: int) -> None:
    """Makes the training fail, as a kill would, before the checkpoint of epoch `number` is in place."""
    original = CheckpointFolder.save

    def save(self, model, history):
        if len(history) == number:
            raise Kill
        original(self, model, history)

    monkeypatch.setattr(CheckpointFolder, 'save', save)


@pytest.mark.parametrize('config', [CONFIG, AVERAGED], ids=['none', 'ema'])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch, config):
    whole, history = fit_model(tmp_path / 'whole', config)
    with monkeypatch.context() as patch:
        kill_in_epoch(patch, 3)
        with pytest.raises(Kill):
            fit_model(tmp_path / 'killed', config)
    resumed, resumed_history = fit_model(tmp_path / 'killed', config)
    assert strip_times(resumed_history) == strip_times(history)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_averaging_changes_what_is_validated_and_not_how_the_training_goes(tmp_path):
    _, plain = fit_model(tmp_path / 'plain')
    _, averaged = fit_model(tmp_path / 'averaged', AVERAGED)
    assert [entry['loss'] for entry in averaged] == [entry['loss'] for entry in plain]
    assert all(a['val_loss'] != b['val_loss'] for a, b in zip(averaged, plain, strict=True))


def test_a_phase_that_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    done, history = fit_model(tmp_path)
    monkeypatch.setattr(keras.Model, 'fit', lambda *arguments, **options: pytest.fail('trained again'))
    again, again_history = fit_model(tmp_path)
    assert again_history == history
    np.testing.assert_array_equal(done.get_weights()[0], again.get_weights()[0])


@pytest.mark.parametrize('config', [CONFIG, AVERAGED], ids=['none', 'ema'])
def test_the_weights_of_the_best_epoch_are_kept(tmp_path, config):
    model, history = fit_model(tmp_path, config)
    best = find_best_epoch(history)
    assert model.evaluate(FEATURES, LABELS, verbose=0) == pytest.approx([best['val_loss'], best['val_accuracy']])


@pytest.mark.parametrize(
    ('epochs', 'best'),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),  # the highest accuracy, whatever the loss
        ([(1.0, 0.227), (1.0, 0.084), (0.9, 0.01)], 2),  # of equal accuracies the lowest loss
        ([(1.0, 0.1), (1.0, 0.1)], 1),  # of equal epochs the first
    ],
)
def test_the_best_epoch_has_the_highest_accuracy_and_of_several_such_the_lowest_loss(epochs, best):
    history = [
        {'epoch': number, 'val_accuracy': accuracy, 'val_loss': loss}
        for number, (accuracy, loss) in enumerate(epochs, start=1)
    ]
    assert find_best_epoch(history)['epoch'] == best


def test_a_later_epoch_of_equal_accuracy_and_lower_loss_replaces_the_weights(tmp_path):
    saved = []
    recorder = Recorder(
        Phase('training', 3, 0.1), EpochOrder(8, 0), SimpleNamespace(save=lambda *_: None), 'best.weights.h5', []
    )
    recorder.set_model(SimpleNamespace(optimizer=keras.optimizers.SGD(), save_weights=saved.append))
    for epoch, loss in enumerate([0.3, 0.1, 0.2]):
        recorder.on_epoch_begin(epoch)
        recorder.on_epoch_end(epoch, {'accuracy': 1.0, 'val_accuracy': 1.0, 'val_loss': loss})
        assert len(saved) == min(epoch + 1, 2)


def test_the_history_has_metrics_learning_rate_and_times(tmp_path):
    _, history = fit_model(tmp_path)
    assert [entry['epoch'] for entry in history] == [1, 2, 3, 4]
    keys = {
        'phase',
        'epoch',
        'loss',
        'accuracy',
        'val_loss',
        'val_accuracy',
        'learning_rate',
        'images_per_s',
        'seconds',
    }
    assert set(history[0]) == keys
    assert history[0]['learning_rate'] == pytest.approx(0.01)
    assert history[0]['images_per_s'] > 0


def test_tensorboard_gets_the_learning_rate_and_the_images_per_second(tmp_path):
    fit_model(tmp_path, epochs=1)
    (file,) = (tmp_path / 'logs' / 'train').glob('events.*')
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value}
    assert {'epoch_loss', 'epoch_accuracy', 'epoch_learning_rate', 'epoch_images_per_s'} <= tags


def test_a_loss_that_is_not_a_number_stops_the_training_and_says_what_to_set(tmp_path):
    config = TrainerConfig(learning_rate=1e38, epochs=2, batch_size=8)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(10), keras.layers.Softmax()])
    compile_model(model, config)
    with pytest.raises(TrainingError, match=r'loss became NaN .* lower trainer\.learning_rate \(1e\+38\)'):
        fit_model(tmp_path, config, model=model, features=FEATURES * 1e3)


def test_a_phase_that_stopped_early_is_not_continued(tmp_path):
    config = TrainerConfig(learning_rate=1e-9, epochs=9, batch_size=16, early_stopping_patience=2)
    _, history = fit_model(tmp_path, config)
    assert len(history) == 3
    _, again = fit_model(tmp_path, config)
    assert again == history


@pytest.mark.parametrize(
    ('accuracies', 'patience', 'stalled'),
    [([0.1, 0.2, 0.2], 1, True), ([0.1, 0.2, 0.3], 1, False), ([0.5, 0.4, 0.4], 2, True), ([0.5, 0.4], 2, False)],
)
def test_a_stall_is_as_many_epochs_as_the_patience_without_a_better_one(accuracies, patience, stalled):
    history = [{'val_accuracy': accuracy} for accuracy in accuracies]
    assert has_stalled(history, patience) is stalled
    assert not has_stalled(history, None)


def test_the_cosine_schedule_warms_up_peaks_and_ends_at_zero():
    config = TrainerConfig(schedule='cosine', warmup_epochs=2)
    schedule = make_schedule(config, Phase('training', 10, 0.5), steps_per_epoch=10)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(0.25)
    assert rates[20] == max(rates) == pytest.approx(0.5)
    assert rates[60] == pytest.approx(0.25, abs=1e-3)
    assert rates[100] == pytest.approx(0, abs=1e-6)


def test_the_constant_schedule_is_the_learning_rate():
    assert make_schedule(TrainerConfig(), Phase('training', 10, 2e-5), 100) == 2e-5


def test_balanced_class_weights_make_every_class_count_the_same():
    labels = np.repeat(np.arange(10), np.arange(1, 11))
    weights = compute_class_weights(labels, 10)
    shares = [weights[label] * (labels == label).sum() for label in range(10)]
    assert shares == pytest.approx([5.5] * 10)


@pytest.mark.parametrize('settings', [{'mix': 'mixup'}, {'label_smoothing': 0.3}], ids=['mixup', 'smoothed'])
def test_soft_labels_reach_the_loss_and_validation_is_on_images_that_are_not_mixed(tmp_path, settings):
    features = FEATURES.reshape(ROWS, 1, 1, 6)  # one pixel with six channels

    def fit_soft(name, **settings):
        keras.utils.set_random_seed(3)
        layers = [keras.Input((1, 1, 6)), keras.layers.Flatten(), keras.layers.Dense(10, activation='softmax')]
        model, config = (
            keras.Sequential(layers),
            TrainerConfig(learning_rate=1e-12, epochs=1, batch_size=16, **settings),
        )
        compile_model(model, config)
        return model, fit_model(tmp_path / name, config, model=model, features=features)[1][0]

    _, plain = fit_soft('plain')
    model, soft = fit_soft('soft', **settings)
    assert soft['loss'] != pytest.approx(plain['loss'], rel=1e-3)
    assert soft['val_accuracy'] == plain['val_accuracy']
    assert soft['val_loss'] == pytest.approx(model.evaluate(features, np.eye(10)[LABELS], verbose=0)[0])


def test_class_weights_reach_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, 'compute_class_weights', lambda labels, num_classes: np.zeros(num_classes, np.float32))
    config = TrainerConfig(learning_rate=0.01, batch_size=16, epochs=1, class_weights='balanced')
    _, history = fit_model(tmp_path, config)
    assert history[0]['loss'] == 0
