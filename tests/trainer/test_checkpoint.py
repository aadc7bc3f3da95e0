"""Checkpoints: what they restore, and what a kill or a full disk leaves."""

from pathlib import Path

import boto3
import keras
import numpy as np
import pytest

from components.errors import StorageError, TrainingError
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


def test_a_restored_model_trains_on_exactly_as_the_saved_one(place):
    """This needs the optimizer's state, the step count and the state of dropout's random generator."""
    saved = make_model(0)
    train(saved, 5)
    CheckpointFolder(str(place)).save(saved, [{'epoch': 1}])
    restored = make_model(1)
    assert CheckpointFolder(str(place)).restore(restored) == [{'epoch': 1}]
    train(saved, 5)
    train(restored, 5)
    for one, other in zip(saved.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(restored.optimizer.iterations) == 10


def test_without_a_checkpoint_the_restored_history_is_empty(place):
    assert CheckpointFolder(str(place / 'new')).restore(make_model(0)) == []


def test_only_the_newest_epoch_is_kept(place):
    folder, model = CheckpointFolder(str(place)), make_model(0)
    train(model, 1)
    for epochs in (1, 2, 3):
        folder.save(model, [{}] * epochs)
    assert [each.name for each in place.iterdir()] == ['epoch-00003']


def test_a_half_written_epoch_is_not_used_and_is_replaced_by_a_whole_one(place):
    folder, model = CheckpointFolder(str(place)), make_model(0)
    train(model, 1)
    folder.save(model, [{'epoch': 1}])
    half = place / 'epoch-00002'
    half.mkdir()
    (half / 'state.weights.h5').write_bytes(b'half')
    assert folder.restore(model) == [{'epoch': 1}]
    folder.save(model, [{'epoch': 1}, {'epoch': 2}])
    assert folder.restore(model) == [{'epoch': 1}, {'epoch': 2}]


def test_the_weights_of_the_best_epoch_are_there_for_the_next_attempt(place):
    folder, model = CheckpointFolder(str(place)), make_model(0)
    train(model, 1)
    model.save_weights(folder.best_weights)
    best = model.get_weights()
    folder.save(model, [{}])
    train(model, 1)
    folder.save(model, [{}, {}])
    CheckpointFolder(str(place)).load_best(model)
    for one, other in zip(best, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(StorageError, match=r'file/x cannot be made: .*trainer\.checkpoint_dir'):
        CheckpointFolder(str(tmp_path / 'file' / 'x'))


def test_a_store_that_is_lost_while_training_is_an_error_that_names_it(make_bucket):
    bucket = make_bucket('s3')
    folder, model = CheckpointFolder(f'{bucket}/training'), make_model(0)
    train(model, 1)
    boto3.client('s3').delete_bucket(Bucket=bucket.removeprefix('s3://'))
    with pytest.raises(StorageError, match=rf'{bucket}/training cannot be used: '):
        folder.save(model, [{}])


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


def test_a_kill_while_checkpoints_are_removed_leaves_none_that_looks_complete(place, monkeypatch):
    folder, model = CheckpointFolder(str(place / 'training')), make_model(0)
    train(model, 1)
    folder.save(model, [{'epoch': 1}])

    def kill(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('trainer.checkpoint.remove_folder', kill)
        with pytest.raises(KeyboardInterrupt):
            remove_checkpoints(str(place))
    assert list(place.glob('training/epoch-00001/*.h5'))
    assert folder.restore(make_model(1)) == []
    remove_checkpoints(str(place))
    assert not place.exists()


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
    assert locate_checkpoints('/r/Trainer/model_run/6', key, 's3://b/kept') == f's3://b/kept/{key}'
