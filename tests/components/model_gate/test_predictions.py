"""Predictions on the test split: which records they belong to, and when those kept with a version are used."""

import logging
import time

import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.data import cifar10
from components.errors import DataError
from components.model_gate import predictions
from components.model_gate.predictions import (
    find_predictions,
    predict_records,
    read_records,
    write_examples,
    write_predictions,
)

NUM_CLASSES = cifar10.CONTRACT.num_classes
RECORDS = [(b'png 0', 3, b'test_00000'), (b'png 1', 5, b'test_00001'), (b'png 2', 3, b'test_00002')]


def write_records(file, records) -> str:
    """Writes (image, label, id) as a split's records, without an id where it is empty; returns the file's path."""
    with tf.io.TFRecordWriter(str(file), 'GZIP') as writer:
        for image, label, name in records:
            example = tf.train.Example()
            example.features.feature[features.IMAGE_KEY].bytes_list.value.append(image)
            example.features.feature[features.LABEL_KEY].int64_list.value.append(label)
            if name:
                example.features.feature[features.ID_KEY].bytes_list.value.append(name)
            writer.write(example.SerializeToString())
    return str(file)


@pytest.fixture
def records(tmp_path):
    return read_records([write_records(tmp_path / 'records.gz', RECORDS)])


def draw_probabilities(count: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(NUM_CLASSES), count).astype(np.float32)


def test_the_same_records_in_other_files_and_in_another_order_have_the_same_digest_and_order(tmp_path, records):
    (tmp_path / 'more').mkdir()
    write_records(tmp_path / 'more' / 'b.gz', RECORDS[:1])
    write_records(tmp_path / 'more' / 'a.gz', [RECORDS[2], RECORDS[1]])
    again = read_records([str(tmp_path / 'more' / '*')])
    assert again.digest == records.digest
    assert again.ids.tolist() == records.ids.tolist()
    assert again.labels.tolist() == records.labels.tolist()
    assert dict(zip(again.ids.tolist(), again.labels.tolist(), strict=True)) == {
        name: label for _, label, name in RECORDS
    }


@pytest.mark.parametrize(
    'changed',
    [
        [(b'png x', 3, b'test_00000'), *RECORDS[1:]],
        [(b'png 0', 4, b'test_00000'), *RECORDS[1:]],
        [(b'png 0', 3, b'test_00009'), *RECORDS[1:]],
        [(b'png 0', 3, b''), *RECORDS[1:]],
        RECORDS[:2],
        [*RECORDS, RECORDS[0]],
    ],
    ids=['image', 'label', 'id', 'no id', 'fewer', 'twice'],
)
def test_other_records_have_a_different_digest(tmp_path, records, changed):
    assert read_records([write_records(tmp_path / 'changed.gz', changed)]).digest != records.digest


def test_an_empty_split_is_refused_and_named(tmp_path):
    with pytest.raises(DataError, match=r'matches .*nothing.*; the split is empty'):
        read_records([str(tmp_path / 'nothing*')])


def test_kept_predictions_are_those_that_were_written(tmp_path, records):
    probabilities = draw_probabilities(3)
    write_predictions(tmp_path / 'kept.npz', records, probabilities)
    found, fault = find_predictions(tmp_path / 'kept.npz', records, NUM_CLASSES)
    np.testing.assert_array_equal(found, probabilities)
    assert (found.dtype, fault) == (np.float32, '')


def test_predictions_for_other_records_are_not_used(tmp_path, records):
    others = read_records([write_records(tmp_path / 'others.gz', [(b'png x', 3, b'test_00000'), *RECORDS[1:]])])
    write_predictions(tmp_path / 'kept.npz', others, draw_probabilities(3))
    assert find_predictions(tmp_path / 'kept.npz', records, NUM_CLASSES) == (
        None,
        'its predictions are for a different test split',
    )


def test_a_version_without_predictions_is_said_to_have_none(tmp_path, records):
    assert find_predictions(tmp_path / 'kept.npz', records, NUM_CLASSES) == (None, 'it was pushed without predictions')


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'text', 'empty', 'shape', 'lacks an array'])
def test_damaged_predictions_are_ignored_with_a_warning(tmp_path, records, damage, caplog):
    file = tmp_path / 'kept.npz'
    write_predictions(file, records, draw_probabilities(3)[:, : 9 if damage == 'shape' else 10])
    content = file.read_bytes()
    if damage == 'cut':
        file.write_bytes(content[: len(content) // 2])
    elif damage == 'flipped':  # in the middle of the probabilities, the last array
        place = content.rindex(b'probabilities.npy', 0, len(content) // 2 + len(content) // 4) + 60
        file.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    elif damage in ('text', 'empty'):
        file.write_bytes(b'these are not arrays' if damage == 'text' else b'')
    elif damage == 'lacks an array':
        np.savez(file, digest=records.digest, ids=records.ids, labels=records.labels)
    with caplog.at_level(logging.WARNING, logger='components.model_gate.predictions'):
        assert find_predictions(file, records, NUM_CLASSES) == (None, 'the file of its predictions is damaged')
    (message,) = caplog.messages
    assert 'kept.npz is damaged and is ignored' in message


class First(tf.Module):
    """Predicts, as the first class, the number of bytes of the record; so a result belongs to one record."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def predict(self, examples):
        lengths = tf.cast(tf.strings.length(examples), tf.float32)[:, tf.newaxis]
        return {features.OUTPUT_PROBABILITIES: tf.pad(lengths, [[0, 0], [0, NUM_CLASSES - 1]])}


def test_every_record_is_predicted_once_in_its_order_and_the_progress_is_reported(tmp_path):
    from components.progress import listen

    pairs = [(b'x' * length, 0, b'') for length in range(21)]  # two batches, and one that is not full
    records = read_records([write_records(tmp_path / 'records.gz', pairs)])
    model = First()
    tf.saved_model.save(model, str(tmp_path / 'model'), {features.SIGNATURE_EXAMPLES: model.predict})
    reports = []
    with listen(reports.append):
        probabilities = predict_records(str(tmp_path / 'model'), records, 'the new model')
    assert probabilities[:, 0].tolist() == [len(record) for record in records.serialized]
    assert {report.what for report in reports} == {'predictions of the new model on test'}
    assert (reports[0].done, reports[-1].done, reports[-1].total) == (0, 21, 21)
    assert len({report.done for report in reports}) > 2


def test_after_an_error_only_the_batches_that_were_begun_are_predicted(tmp_path, monkeypatch):
    records = read_records([write_records(tmp_path / 'records.gz', [(b'x', 0, b'%d' % i) for i in range(80)])])
    model = First()
    tf.saved_model.save(model, str(tmp_path / 'model'), {features.SIGNATURE_EXAMPLES: model.predict})
    begun = []

    def fail(examples):
        begun.append(len(examples))
        time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions, 'skip_costly_passes', lambda signature: fail)
    with pytest.raises(KeyboardInterrupt):
        predict_records(str(tmp_path / 'model'), records, 'the new model')
    assert 1 <= len(begun) <= 4  # of 10: two at once, and two that their threads took meanwhile


def test_the_records_for_tfma_hold_label_and_probabilities_of_each_model(tmp_path, records):
    one, two = draw_probabilities(3), draw_probabilities(6)[3:]
    write_examples(tmp_path / 'examples.gz', records, {'one': one, 'two': two})
    dataset = tf.data.TFRecordDataset(str(tmp_path / 'examples.gz'), 'GZIP')
    read = [tf.train.Example.FromString(record).features.feature for record in dataset.as_numpy_iterator()]
    assert [feature[features.LABEL_KEY].int64_list.value[0] for feature in read] == records.labels.tolist()
    for name, probabilities in (('one', one), ('two', two)):
        values = np.array([feature[name].float_list.value for feature in read], np.float32)
        np.testing.assert_array_equal(values, probabilities)
