"""Temperature scaling: the temperature that is found, what it does to a model, and how the error is measured."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.model_gate.metrics import BINS, count_calibration
from trainer.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    compute_softmax,
    fit_temperature,
    measure_calibration_error,
    scale_temperature,
)
from trainer.dataset import Split

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(scale=2, size=(4000, 10))
# Labels that are drawn from the probabilities of these logits, which are therefore calibrated.
LABELS = np.array([RANDOM.choice(10, p=row) for row in compute_softmax(LOGITS)])


@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.5])
def test_the_temperature_by_which_calibrated_logits_were_spoilt_is_found(temperature):
    assert fit_temperature(LOGITS * temperature, LABELS) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_has_the_least_negative_log_likelihood():
    logits = LOGITS * 1.7

    def compute_loss(temperature):
        return -np.log(compute_softmax(logits / temperature)[np.arange(len(LABELS)), LABELS]).mean()

    best = fit_temperature(logits, LABELS)
    assert compute_loss(best) < min(compute_loss(best * 1.01), compute_loss(best / 1.01))


def test_the_temperature_stays_within_its_bounds_where_there_is_no_best_one():
    right, wrong = np.eye(10)[LABELS], -np.eye(10)[LABELS]
    assert fit_temperature(right, LABELS) == pytest.approx(MIN_TEMPERATURE)
    assert fit_temperature(wrong, LABELS) == pytest.approx(MAX_TEMPERATURE)


def test_the_calibration_error_is_that_of_the_model_gate():
    probabilities = compute_softmax(LOGITS * 2).astype(np.float32)
    probabilities[0], probabilities[1] = np.eye(10)[0], np.full(10, 0.1)
    sums = sum(count_calibration(label, [row]) for label, row in zip(LABELS, probabilities, strict=True))
    expected = np.abs(sums[:BINS]).sum() / sums[BINS]
    assert expected > 0.1
    assert measure_calibration_error(probabilities, LABELS) == pytest.approx(expected, abs=1e-9)


def test_the_temperature_is_folded_into_the_last_layer_and_changes_no_class():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(16, activation='relu')(inputs))
    outputs = keras.layers.Dense(10, activation='softmax', name=features.OUTPUT_PROBABILITIES)(hidden)
    model = keras.Model(inputs, outputs)
    rows = RANDOM.normal(size=(1000, 12)).astype('float32')  # a number that the batches do not divide
    # Labels that are drawn from the model's own probabilities, of which it then becomes three times too sure.
    labels = np.array([RANDOM.choice(10, p=row / row.sum()) for row in model.predict(rows, verbose=0).astype(float)])
    head = model.get_layer(features.OUTPUT_PROBABILITIES)
    head.set_weights([3 * head.get_weights()[0], RANDOM.normal(size=10) / 10])
    val = Split(encoded=None, labels=labels, read_rows=lambda indices, epoch: tf.gather(rows, indices))
    before = model.predict(rows, verbose=0)
    calibration = scale_temperature(model, val)
    after = model.predict(rows, verbose=0)
    assert calibration.temperature == pytest.approx(3, rel=0.2)
    np.testing.assert_allclose(after, compute_softmax(np.log(before) / calibration.temperature), atol=1e-5)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert calibration.error_before == pytest.approx(measure_calibration_error(before, labels), abs=1e-3)
    assert calibration.error == pytest.approx(measure_calibration_error(after, labels), abs=1e-3)
    assert calibration.error < calibration.error_before / 2
