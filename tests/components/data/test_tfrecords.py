"""Data folders: every record once, with its id and split, and a manifest that says so; or nothing at all."""

import hashlib
import json

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.testing.util import assert_that, equal_to

from components import features
from components.data import cifar10, splits, tfrecords
from components.data.manifest import Source
from components.data.splits import Chunk, choose_split
from components.data.tfrecords import make_records, write_dataset
from components.errors import DataError
from pipeline.config import BeamConfig

SOURCE = Source(kind='archive', name='a.tar.gz', sha256='a' * 64)


@pytest.fixture
def batches(sample_archive, tmp_path_factory) -> list[cifar10.BatchFile]:
    """The sample archive's batch files: 100 training and 20 test images."""
    return cifar10.extract_batches(sample_archive, tmp_path_factory.mktemp('batches'))


def write(batches, out, limit=None):
    return write_dataset(batches, out, SOURCE, limit=limit, beam_args=BeamConfig().args)


def read(folder) -> list[tf.train.Example]:
    files = sorted(str(file) for file in folder.glob('*'))
    dataset = tf.data.TFRecordDataset(files, compression_type='GZIP')
    return [tf.train.Example.FromString(record) for record in dataset.as_numpy_iterator()]


def test_records_follow_the_data_contract(images, tmp_path):
    file = cifar10.write_batch(tmp_path / 'b', images, np.arange(10))
    (first, second) = make_records(Chunk(str(file.path), 3, 2, 'train', 42))
    example = tf.train.Example.FromString(first.example).features.feature
    assert example['id'].bytes_list.value == [b'train_00042']
    assert example['label'].int64_list.value == [3]
    (png,) = example['image'].bytes_list.value
    np.testing.assert_array_equal(tf.io.decode_png(png).numpy(), images[3])
    assert (first.split, first.label) == (choose_split('train_00042'), 3)
    assert (second.split, second.label) == (choose_split('train_00043'), 4)


def test_counts_are_by_split_and_class(images, tmp_path):
    file = cifar10.write_batch(tmp_path / 'b', images[:3], np.array([4, 4, 9]))
    chunk = Chunk(str(file.path), 0, 3, 'test', 0)
    with beam.Pipeline(argv=list(BeamConfig().args)) as pipeline:
        counts = pipeline | beam.Create([chunk]) | tfrecords.WriteSplits(tmp_path, dict.fromkeys(features.SPLITS, 1))
        assert_that(counts, equal_to([(('test', 4), 2), (('test', 9), 1)]))


def test_a_data_folder_holds_every_record_once_and_a_true_manifest(batches, tmp_path):
    written = write(batches, tmp_path / 'd')
    assert written == json.loads((tmp_path / 'd' / 'manifest.json').read_text())
    assert written['source'] == {'kind': 'archive', 'name': 'a.tar.gz', 'sha256': 'a' * 64}
    seen = {}
    for split in features.SPLITS:
        examples = read(tmp_path / 'd' / split)
        assert len(examples) == written['counts'][split] == sum(written['counts_by_class'][split].values())
        for example in examples:
            feature = example.features.feature
            seen[feature['id'].bytes_list.value[0].decode()] = feature['label'].int64_list.value[0]
    *train_labels, test_labels = [cifar10.read_records(file.path, 0, file.records).labels for file in batches]
    expected = {f'test_{number:05d}': label for number, label in enumerate(test_labels)}
    train = np.concatenate(train_labels)
    expected |= {f'train_{number:05d}': label for number, label in enumerate(train)}
    assert seen == expected


def test_the_records_of_the_same_archive_never_change(batches, tmp_path):
    """The digest is that of the release before other data sets could be written."""
    write(batches, tmp_path / 'd')
    digest = hashlib.sha256()
    for file in sorted((tmp_path / 'd').glob('*/*')):
        digest.update(file.relative_to(tmp_path / 'd').as_posix().encode())
        for record in tf.data.TFRecordDataset(str(file), 'GZIP').as_numpy_iterator():
            digest.update(record)
    assert digest.hexdigest() == '53dd0d8aff1229e14a0d5108e248e524fbbab740445b0654aa19d9c508eec96f'


def test_large_splits_are_sharded(monkeypatch, batches, tmp_path):
    monkeypatch.setattr(splits, 'RECORDS_PER_SHARD', 30)
    write(batches, tmp_path / 'd')
    assert len(list((tmp_path / 'd' / 'train').iterdir())) == 3


def test_a_limit_that_empties_a_split_is_refused_and_leaves_nothing(batches, tmp_path):
    with pytest.raises(DataError, match=r'leaves no record for .*val'):
        write(batches, tmp_path / 'd', limit=6)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(batches, tmp_path, monkeypatch):
    def fail(chunk):
        raise RuntimeError('disk full')

    monkeypatch.setattr(tfrecords, 'make_records', fail)
    with pytest.raises(RuntimeError, match='disk full'):
        write(batches, tmp_path / 'd')
    assert list(tmp_path.iterdir()) == []
