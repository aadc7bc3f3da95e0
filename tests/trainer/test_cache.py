"""The feature cache: it returns what was stored, and the frozen pass that fills it ends cleanly."""

import os
import threading

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from components.errors import TrainingError
from trainer.cache import FeatureCache, fill_cache, make_cache_reader, measure_disk_reading
from trainer.dataset import switch_tuning_off


@pytest.mark.parametrize('kind', ['memory', 'disk'])
@pytest.mark.parametrize('dtype', [np.float32, ml_dtypes.bfloat16])
def test_rows_are_read_as_they_were_written_in_any_order(kind, dtype, tmp_path):
    rows = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(dtype)
    filled = FeatureCache(kind, 10, (2, 3), dtype, str(tmp_path))
    filled.write(0, rows[:4])
    filled.write(4, rows[4:])
    got = filled.read(np.array([9, 0, 5, 5]))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, rows[[9, 0, 5, 5]])
    filled.close()


def test_the_file_of_a_cache_has_no_name_so_nothing_is_left_of_it(tmp_path):
    filled = FeatureCache('disk', 100, (1000,), np.float32, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    filled.close()


def test_a_full_disk_is_noticed_before_anything_is_computed(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', refuse)
    with pytest.raises(TrainingError, match=r'could not be created in .* \(No space left on device\); free some space'):
        FeatureCache('disk', 10, (10,), np.float32, str(tmp_path))


def read_numbers(indices, view):
    """Stands for a reader of images: the "image" of row i in view v is the number 10 * i + v."""
    return tf.cast(tf.reshape(indices, [-1, 1]) * 10 + view, tf.float32)


def double(images):
    """Stands for a trunk."""
    return images * 2


@pytest.mark.parametrize('kind', ['memory', 'disk'])
@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_filled_cache_returns_the_trunks_output_for_every_view(kind, dtype, tmp_path):
    filled = FeatureCache(kind, 14, (1,), dtype, str(tmp_path))
    mine = range(1, 21, 3)  # the seven rows of the second of three workers
    done = []
    fill_cache(filled, read_numbers, mine, 2, trunk=double, batch_size=3, advance=done.append)
    assert done == [3, 3, 1, 3, 3, 1]
    read_rows = make_cache_reader(filled, mine, 2)
    for epoch in range(4):
        got = read_rows(tf.constant([19, 1], tf.int64), tf.constant(epoch, tf.int64))
        assert got.shape == (2, 1)
        expected = np.array([2 * (190 + epoch % 2), 2 * (10 + epoch % 2)], np.float32)
        assert got.numpy().ravel().tolist() == expected.astype(dtype).tolist()
    filled.close()


def test_a_split_without_rows_for_this_worker_fills_nothing(tmp_path):
    filled = FeatureCache('memory', 0, (1,), np.float32, str(tmp_path))
    fill_cache(filled, read_numbers, range(3, 3), 1, trunk=double, batch_size=3)


def test_the_frozen_pass_has_no_tuning_thread_whose_sleep_its_end_would_wait_for(tmp_path, monkeypatch):
    datasets = []

    def record(dataset):
        datasets.append(switch_tuning_off(dataset))
        return datasets[-1]

    monkeypatch.setattr('trainer.cache.switch_tuning_off', record)
    filled = FeatureCache('memory', 3, (1,), np.float32, str(tmp_path))
    fill_cache(filled, read_numbers, range(3), 1, trunk=double, batch_size=3)
    (dataset,) = datasets
    assert dataset.options().autotune.enabled is False


def fail(*arguments):
    raise OSError(5, 'Input/output error')


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ('broken', 'work', 'error'),
    [('write', fail, OSError), ('trunk', fail, OSError), ('trunk', interrupt, KeyboardInterrupt)],
)
def test_an_error_in_the_frozen_pass_reaches_the_caller_and_no_thread_is_left(
    broken, work, error, tmp_path, monkeypatch
):
    filled = FeatureCache('disk', 300, (1,), np.float32, str(tmp_path))
    calls = []

    def trunk(images):
        calls.append(len(images))
        return work() if broken == 'trunk' and len(calls) > 1 else double(images)

    if broken == 'write':
        monkeypatch.setattr(filled, 'write', work)
    before = threading.active_count()
    with pytest.raises(error):
        fill_cache(filled, read_numbers, range(300), 1, trunk=trunk, batch_size=3)
    assert threading.active_count() == before
    assert len(calls) < 10  # of 100 batches
    filled.close()


def test_a_batch_is_computed_while_the_one_before_is_stored(tmp_path, monkeypatch):
    filled = FeatureCache('memory', 30, (1,), np.float32, str(tmp_path))
    write, gate, calls = filled.write, threading.Event(), []

    def wait_and_write(start, rows):
        assert gate.wait(timeout=30)
        write(start, rows)

    def trunk(images):
        calls.append(len(images))
        if len(calls) == 2:  # the first batch is being written until now
            gate.set()
        return double(images)

    monkeypatch.setattr(filled, 'write', wait_and_write)
    fill_cache(filled, read_numbers, range(30), 1, trunk=trunk, batch_size=3)
    np.testing.assert_array_equal(filled.read(np.arange(30)).ravel(), np.arange(30) * 20)


def test_reading_from_a_disk_is_timed_without_the_page_cache_and_leaves_nothing(tmp_path, monkeypatch):
    forgotten = []
    forget = os.posix_fadvise
    monkeypatch.setattr(os, 'posix_fadvise', lambda *arguments: forgotten.append(arguments[3]) or forget(*arguments))
    assert measure_disk_reading(str(tmp_path), (7, 1000), np.float32) > 0
    assert forgotten == [os.POSIX_FADV_DONTNEED]
    assert list(tmp_path.iterdir()) == []
