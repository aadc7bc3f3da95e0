"""Progress within epochs and over a whole training, as Keras calls the callback."""

import keras
import numpy as np
import pytest

from components.progress import listen
from trainer.epoch_progress import EpochProgress

TRAIN, VAL, BATCH = 70, 20, 16


@pytest.fixture
def fit():
    """Trains a small model on 70 images with validation on 20, and returns the reports."""

    def run(*, first_epoch: int = 0, epochs: int = 2, steps_per_execution: int = 1) -> list:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(loss='mse', steps_per_execution=steps_per_execution)
        progress = EpochProgress(
            'head', epochs, first_epoch=first_epoch, train_count=TRAIN, val_count=VAL, batch_size=BATCH
        )
        train, val = ((np.ones((count, 3)), np.ones((count, 2))) for count in (TRAIN, VAL))
        seen = []
        with listen(seen.append):
            model.fit(
                *train,
                batch_size=BATCH,
                validation_data=val,
                initial_epoch=first_epoch,
                epochs=epochs,
                callbacks=[progress],
                verbose=0,
            )
        return seen

    return run


def list_done(reports: list, what: str) -> list[int]:
    assert [report.is_finished for report in reports if report.what == what].count(True) == 1
    return [report.done for report in reports if report.what == what and not report.is_finished]


def test_each_epoch_and_its_validation_count_their_images_and_the_training_counts_both(fit):
    reports = fit()
    assert list_done(reports, 'head epoch 1 of 2') == [0, 16, 32, 48, 64, 70]
    assert list_done(reports, 'validation of epoch 2 of 2') == [0, 16, 20]
    assert list_done(reports, 'head')[-1] == 2 * (TRAIN + VAL)
    assert {report.what: report.total for report in reports} == {
        'head': 2 * (TRAIN + VAL),
        'head epoch 1 of 2': TRAIN,
        'validation of epoch 1 of 2': VAL,
        'head epoch 2 of 2': TRAIN,
        'validation of epoch 2 of 2': VAL,
    }


def test_an_epoch_is_not_reported_within_a_validation_nor_a_validation_within_an_epoch(fit):
    running = set()
    for report in fit():
        (running.discard if report.is_finished else running.add)(report.what)
        assert len(running - {'head'}) <= 1
    assert not running


def test_batches_that_run_at_once_are_counted_in_full(fit):
    assert list_done(fit(steps_per_execution=2), 'head epoch 1 of 2') == [0, 32, 64, 70]


def test_a_resumed_training_begins_with_the_epochs_that_are_done(fit):
    reports = fit(first_epoch=3, epochs=4)
    assert (reports[0].what, reports[0].done, reports[0].total) == ('head', 3 * (TRAIN + VAL), 4 * (TRAIN + VAL))
    assert list_done(reports, 'head')[-1] == 4 * (TRAIN + VAL)
