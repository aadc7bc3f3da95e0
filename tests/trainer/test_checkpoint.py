"""Checkpoints: what they restore, and what a kill or a full disk leaves."""

from pathlib import Path

import keras
import numpy as np
import pytest

from components.errors import TrainingError
from trainer.checkpoint import CheckpointFolder, compute_training_key, locate_checkpoints, remove_checkpoints


def make_model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    model.compile(keras.optimizers.RMSprop(0.1), 'mse')
    return model


def train(model: keras.Model, steps: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(steps):
        model.train_on_batch(random.normal(size=(8, 4)), random.normal(size=(8, 3)))


def test_a_restored_model_trains_on_exactly_as_the_saved_one(tmp_path):
    """This needs the optimizer's state, the step count and the state of dropout's random generator."""
    saved = make_model(0)
    train(saved, 5)
    CheckpointFolder(str(tmp_path)).save(saved, [{'epoch': 1}])
    restored = make_model(1)
    assert CheckpointFolder(str(tmp_path)).restore(restored) == [{'epoch': 1}]
    train(saved, 5)
    train(restored, 5)
    for one, other in zip(saved.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(restored.optimizer.iterations) == 10


def test_without_a_checkpoint_the_restored_history_is_empty(tmp_path):
    assert CheckpointFolder(str(tmp_path / 'new')).restore(make_model(0)) == []


def test_only_the_newest_epoch_is_kept(tmp_path):
    folder, model = CheckpointFolder(str(tmp_path)), make_model(0)
    train(model, 1)
    for epochs in (1, 2, 3):
        folder.save(model, [{}] * epochs)
    assert [path.name for path in tmp_path.iterdir()] == ['epoch-00003']


def test_a_half_written_epoch_is_not_used(tmp_path):
    folder, model = CheckpointFolder(str(tmp_path)), make_model(0)
    train(model, 1)
    folder.save(model, [{'epoch': 1}])
    half = tmp_path / 'epoch-00002'
    half.mkdir()
    (half / 'state.weights.h5').write_bytes(b'half')
    assert folder.restore(model) == [{'epoch': 1}]


def test_attempts_that_fail_on_a_full_disk_leave_at_most_one_half_written_epoch(tmp_path, monkeypatch):
    folder, model = CheckpointFolder(str(tmp_path)), make_model(0)
    train(model, 1)

    def fill_disk(path):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    for process in (101, 102):
        with monkeypatch.context() as patch:
            patch.setattr('os.getpid', lambda process=process: process)
            patch.setattr(model, 'save_weights', fill_disk)
            with pytest.raises(OSError, match='No space left'):
                folder.save(model, [{}])
        assert len(list(tmp_path.iterdir())) == 1
    folder.save(model, [{}])
    assert [path.name for path in tmp_path.iterdir()] == ['epoch-00001']


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path):
    folder, model = CheckpointFolder(str(tmp_path)), make_model(0)
    train(model, 1)
    folder.save(model, [{'epoch': 1}])
    (tmp_path / 'epoch-00001' / 'state.weights.h5').write_bytes(b'noise')
    with pytest.raises(TrainingError, match=r'epoch-00001 is damaged .*remove it'):
        folder.restore(model)


def test_a_kill_while_checkpoints_are_removed_leaves_none_that_looks_complete(tmp_path, monkeypatch):
    folder, model = CheckpointFolder(str(tmp_path / 'training')), make_model(0)
    train(model, 1)
    folder.save(model, [{'epoch': 1}])

    def kill(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('tensorflow.io.gfile.rmtree', kill)
        with pytest.raises(KeyboardInterrupt):
            remove_checkpoints(str(tmp_path))
    assert list(tmp_path.glob('training/epoch-00001/*.h5'))
    assert folder.restore(make_model(1)) == []
    remove_checkpoints(str(tmp_path))
    assert not tmp_path.exists()


def test_all_attempts_at_a_training_have_the_same_folder_and_a_different_training_has_a_different_one(tmp_path):
    (tmp_path / 'a.gz').write_bytes(b'1')
    files = [str(tmp_path / '*')]
    key = compute_training_key({'seed': 1}, files, 'graph')
    assert key == compute_training_key({'seed': 1}, files, 'graph')
    assert key != compute_training_key({'seed': 2}, files, 'graph')
    assert key != compute_training_key({'seed': 1}, files, 'other graph')
    (tmp_path / 'a.gz').write_bytes(b'12')
    assert key != compute_training_key({'seed': 1}, files, 'graph')
    assert locate_checkpoints('/r/Trainer/model_run/6', key) == f'/r/Trainer/checkpoints/{key}'
    assert locate_checkpoints('gs://b/r/Trainer/model_run/6', key) == f'gs://b/r/Trainer/checkpoints/{key}'
