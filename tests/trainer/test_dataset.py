import numpy as np
import pytest
import tensorflow as tf

from components.errors import DataError
from tests.conftest import IMAGE_SIZE
from trainer.cluster import Share
from trainer.dataset import EpochOrder, list_batch_starts, make_batches, make_image_rows, read_records


@pytest.fixture(scope='module')
def records(sample_data, transform_output):
    return read_records([str(sample_data / 'test' / '*')], transform_output)


def read_epoch(batches: tf.data.Dataset) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def test_records_are_the_whole_split(records):
    assert records.encoded.shape == (20,)
    assert records.encoded.dtype == tf.string
    assert sorted(records.labels) == sorted([*range(10)] * 2)


def test_an_empty_split_is_an_error(tmp_path, transform_output):
    with pytest.raises(DataError, match=r'No TFRecord file with records matches .*the split is empty'):
        read_records([str(tmp_path / '*')], transform_output)


def test_batches_are_preprocessed_images_and_the_last_may_be_smaller(records, transform_output):
    rows = make_image_rows(records, transform_output, 'none', 0)
    batches = make_batches(rows, records.labels, EpochOrder(20, None), 16)
    (images, labels), (last, _) = batches
    assert images.shape == (16, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert last.shape == (4, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert (images.dtype, labels.dtype) == (tf.float32, tf.int64)
    assert batches.cardinality() == 2
    np.testing.assert_array_equal(labels, records.labels[:16])


def test_the_order_is_decided_by_seed_and_epoch_alone():
    def list_rows(seed, epoch):
        return EpochOrder(50, seed).list_rows(epoch).tolist()

    assert list_rows(1, 0) == list_rows(1, 0)
    assert list_rows(1, 0) != list_rows(1, 1)
    assert list_rows(1, 0) != list_rows(2, 0)
    assert sorted(list_rows(1, 3)) == list(range(50))
    assert list_rows(None, 3) == list(range(50))


def test_batches_follow_the_epoch_that_is_set(records):
    order = EpochOrder(20, 7)
    batches = make_batches(lambda indices, epoch: indices, records.labels, order, 8)
    for epoch in (0, 1, 5):
        order.epoch = epoch
        indices = [int(index) for rows, _ in batches for index in rows]
        assert indices == order.list_rows(epoch).tolist()
    assert read_epoch(batches) == records.labels[order.list_rows(5)].tolist()


@pytest.mark.parametrize(('workers', 'replicas_each'), [(1, 2), (2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize(('count', 'batch_size'), [(50, 16), (50, 15), (48, 16), (57, 8)])
def test_workers_together_train_on_the_batches_of_one_and_each_on_rows_of_its_own(
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
        taken = make_batches(lambda indices, epoch: indices, labels, order, batch_size, share)
        for number, example in zip(range(len(expected) * replicas_each), taken, strict=False):
            rows, got_labels, weights = (tensor.numpy().tolist() for tensor in example)
            assert rows, 'a replica without a row would make the loss 0 / 0'
            assert {row % workers for row in rows} == {worker}
            assert got_labels == [row % 10 for row in rows]
            batches[number // replicas_each] += rows
            total[number // replicas_each] += weights[0] / replicas  # of the replica's mean
            assert weights[0] == pytest.approx(replicas * len(rows) / len(expected[number // replicas_each]))
    assert [sorted(batch) for batch in batches] == expected
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_rows_fewer_than_replicas_join_the_batch_before():
    assert list(list_batch_starts(35, 16)) == [0, 16, 32]
    assert list(list_batch_starts(35, 16, 4)) == [0, 16]
    assert list(list_batch_starts(36, 16, 4)) == [0, 16, 32]
    assert list(list_batch_starts(5, 16, 4)) == [0]


def test_fewer_images_than_replicas_are_refused():
    with pytest.raises(DataError, match=r'has 3 images, which are too few for 4 replicas; set trainer\.strategy=one'):
        list_batch_starts(3, 16, 4)


def test_class_weights_weigh_examples(records):
    weights = np.arange(10, dtype=np.float32)
    batches = make_batches(lambda rows, epoch: rows, records.labels, EpochOrder(20, 1), 8, class_weights=weights)
    for _, labels, got in batches:
        assert got.numpy().tolist() == labels.numpy().tolist()


@pytest.mark.parametrize('augmentation', ['flip', 'flip_crop'])
def test_augmentation_changes_with_the_epoch_and_repeats_with_the_seed(records, transform_output, augmentation):
    rows = make_image_rows(records, transform_output, augmentation, 3)
    indices = tf.range(20, dtype=tf.int64)
    first, again, other = (rows(indices, tf.constant(epoch, tf.int64)) for epoch in (0, 0, 1))
    plain = make_image_rows(records, transform_output, 'none', 3)(indices, tf.constant(0, tf.int64))
    np.testing.assert_array_equal(first, again)
    assert first.shape == plain.shape
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, plain)


def test_an_images_augmentation_does_not_depend_on_its_batch(records, transform_output):
    rows = make_image_rows(records, transform_output, 'flip_crop', 3)
    epoch = tf.constant(2, tf.int64)
    whole = rows(tf.range(20, dtype=tf.int64), epoch)
    np.testing.assert_array_equal(rows(tf.constant([13], tf.int64), epoch)[0], whole[13])


def test_flipping_mirrors_about_half_of_the_images(records, transform_output):
    plain = make_image_rows(records, transform_output, 'none', 0)
    flipped = make_image_rows(records, transform_output, 'flip', 0)
    indices, mirrored = tf.range(20, dtype=tf.int64), 0
    before = plain(indices, tf.constant(0, tf.int64)).numpy()
    for epoch in range(5):
        after = flipped(indices, tf.constant(epoch, tf.int64)).numpy()
        same = np.array([np.array_equal(a, b) for a, b in zip(before, after, strict=True)])
        turned = np.array([np.array_equal(a[:, ::-1], b) for a, b in zip(before, after, strict=True)])
        assert (same | turned).all()
        mirrored += turned.sum()
    assert 30 <= mirrored <= 70
