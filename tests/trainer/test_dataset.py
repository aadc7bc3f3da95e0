"""Reading a split, and the order, the batches and the augmentation of an epoch."""

import numpy as np
import pytest
import tensorflow as tf

from components.errors import DataError
from tests.conftest import IMAGE_SIZE
from trainer.cluster import Share
from trainer.dataset import EpochOrder, Split, list_batch_starts, make_batches, read_split


@pytest.fixture(scope='module')
def read_test_split(sample_data, transform_output):
    """Reads the sample's test split: two images of each class."""

    def read(augmentation='none', seed=0) -> Split:
        return read_split([str(sample_data / 'test' / '*')], transform_output, augmentation, seed)

    return read


@pytest.fixture(scope='module')
def split(read_test_split) -> Split:
    return read_test_split()


def make_numbered_split(labels: np.ndarray) -> Split:
    """A split whose rows are their own numbers."""
    return Split(encoded=None, labels=labels, read_rows=lambda indices, epoch: indices)


def read_epoch(batches: tf.data.Dataset) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def test_a_split_has_all_images_of_its_files(split):
    assert split.count == 20
    assert split.encoded.shape == (20,)
    assert split.encoded.dtype == tf.string
    assert sorted(split.labels) == sorted([*range(10)] * 2)


def test_an_empty_split_is_an_error(tmp_path, transform_output):
    with pytest.raises(DataError, match=r'No TFRecord file with records matches .*the split is empty\. Write the data'):
        read_split([str(tmp_path / '*')], transform_output)


def test_batches_are_preprocessed_images_and_the_last_may_be_smaller(split):
    batches = make_batches(split, EpochOrder(20, None), 16)
    (images, labels), (last, _) = batches
    assert images.shape == (16, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert last.shape == (4, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert (images.dtype, labels.dtype) == (tf.float32, tf.int64)
    assert batches.cardinality() == 2
    assert batches.options().autotune.enabled is False  # its thread would make the end of `fit` wait for up to a minute
    np.testing.assert_array_equal(labels, split.labels[:16])


def test_only_the_seed_and_the_epoch_decide_the_order():
    def list_rows(seed, epoch):
        return EpochOrder(50, seed).list_rows(epoch).tolist()

    assert list_rows(1, 0) == list_rows(1, 0)
    assert list_rows(1, 0) != list_rows(1, 1)
    assert list_rows(1, 0) != list_rows(2, 0)
    assert sorted(list_rows(1, 3)) == list(range(50))
    assert list_rows(None, 3) == list(range(50))


def test_batches_follow_the_epoch_that_is_set(split):
    order = EpochOrder(20, 7)
    batches = make_batches(make_numbered_split(split.labels), order, 8)
    for epoch in (0, 1, 5):
        order.epoch = epoch
        indices = [int(index) for rows, _ in batches for index in rows]
        assert indices == order.list_rows(epoch).tolist()
    assert read_epoch(batches) == split.labels[order.list_rows(5)].tolist()


@pytest.mark.parametrize(('workers', 'replicas_each'), [(1, 2), (2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize(('count', 'batch_size'), [(50, 16), (50, 15), (48, 16), (57, 8)])
def test_several_workers_share_the_batches_of_one_worker_and_each_keeps_to_its_own_rows(
    workers, replicas_each, count, batch_size
):
    replicas = workers * replicas_each
    labels = np.arange(count) % 10
    expected = [
        sorted(rows.tolist())
        for epoch in (3, 4)
        for rows in np.split(EpochOrder(count, 7).list_rows(epoch), list_batch_starts(count, batch_size, replicas)[1:])
    ]
    batches, total = [[] for _ in expected], np.zeros(len(expected))
    for worker in range(workers):
        order = EpochOrder(count, 7, workers)
        order.epoch = 3
        share = Share(workers, worker, replicas)
        taken = make_batches(make_numbered_split(labels), order, batch_size, share)
        for number, example in zip(range(len(expected) * replicas_each), taken, strict=False):
            rows, got_labels, weights = (tensor.numpy().tolist() for tensor in example)
            assert rows, 'a replica without a row would make the loss 0 / 0'
            assert {row % workers for row in rows} == {worker}
            assert got_labels == [row % 10 for row in rows]
            batches[number // replicas_each] += rows
            total[number // replicas_each] += weights[0] / replicas  # the loss is the mean over the replicas
            assert weights[0] == pytest.approx(replicas * len(rows) / len(expected[number // replicas_each]))
    assert [sorted(batch) for batch in batches] == expected
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_a_last_batch_smaller_than_the_number_of_replicas_is_merged_into_the_one_before():
    assert list(list_batch_starts(35, 16)) == [0, 16, 32]
    assert list(list_batch_starts(35, 16, 4)) == [0, 16]
    assert list(list_batch_starts(36, 16, 4)) == [0, 16, 32]
    assert list(list_batch_starts(5, 16, 4)) == [0]


def test_fewer_images_than_replicas_are_refused():
    with pytest.raises(DataError, match=r'has 3 images, which are too few for 4 replicas; set trainer\.strategy=one'):
        list_batch_starts(3, 16, 4)


def test_class_weights_become_the_weights_of_the_rows(split):
    weights = np.arange(10, dtype=np.float32)
    batches = make_batches(make_numbered_split(split.labels), EpochOrder(20, 1), 8, class_weights=weights)
    for _, labels, got in batches:
        assert got.numpy().tolist() == labels.numpy().tolist()


@pytest.mark.parametrize('augmentation', ['flip', 'flip_crop'])
def test_augmentation_changes_with_the_epoch_and_repeats_with_the_seed(read_test_split, split, augmentation):
    augmented = read_test_split(augmentation, seed=3)
    indices = tf.range(20, dtype=tf.int64)
    first, again, other = (augmented.read_rows(indices, tf.constant(epoch, tf.int64)) for epoch in (0, 0, 1))
    plain = split.read_rows(indices, tf.constant(0, tf.int64))
    np.testing.assert_array_equal(first, again)
    assert first.shape == plain.shape
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, plain)


def test_an_images_augmentation_does_not_depend_on_its_batch(read_test_split):
    augmented = read_test_split('flip_crop', seed=3)
    epoch = tf.constant(2, tf.int64)
    whole = augmented.read_rows(tf.range(20, dtype=tf.int64), epoch)
    np.testing.assert_array_equal(augmented.read_rows(tf.constant([13], tf.int64), epoch)[0], whole[13])


def test_flipping_mirrors_about_half_of_the_images(read_test_split, split):
    flipped = read_test_split('flip')
    indices, mirrored = tf.range(20, dtype=tf.int64), 0
    before = split.read_rows(indices, tf.constant(0, tf.int64)).numpy()
    for epoch in range(5):
        after = flipped.read_rows(indices, tf.constant(epoch, tf.int64)).numpy()
        same = np.array([np.array_equal(a, b) for a, b in zip(before, after, strict=True)])
        turned = np.array([np.array_equal(a[:, ::-1], b) for a, b in zip(before, after, strict=True)])
        assert (same | turned).all()
        mirrored += turned.sum()
    assert 30 <= mirrored <= 70
