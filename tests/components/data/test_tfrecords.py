import json
import signal
import subprocess
import sys
import time

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.testing.util import assert_that, equal_to

from components import features
from components.data import cifar10, manifest, tfrecords
from components.data.manifest import Source, check_vacant, is_written
from components.data.tfrecords import Chunk, choose_split, limit_batches, make_records, write_dataset
from components.errors import DataError, UsageError
from pipeline import data
from pipeline.config import BeamConfig, SampleConfig
from tests.conftest import PROJECT

SOURCE = Source(kind='archive', name='a.tar.gz', sha256='a' * 64)


def write(batches, out, limit=None):
    return write_dataset(batches, out, SOURCE, limit=limit, beam_args=BeamConfig().args)


def read(folder) -> list[tf.train.Example]:
    files = sorted(str(file) for file in folder.glob('*'))
    dataset = tf.data.TFRecordDataset(files, compression_type='GZIP')
    return [tf.train.Example.FromString(record) for record in dataset.as_numpy_iterator()]


def test_the_split_of_an_id_never_changes():
    """Pinned: another split would let images seen in training into val."""
    val = [number for number in range(100) if choose_split(f'train_{number:05d}') == 'val']
    assert val == [13, 14, 22, 37, 41, 44, 49, 84]
    assert {choose_split(f'test_{number:05d}') for number in range(100)} == {'test'}


def test_a_tenth_of_the_official_training_images_is_val():
    val = sum(choose_split(f'train_{number:05d}') == 'val' for number in range(50_000))
    assert 4_800 < val < 5_200


def test_records_hold_the_data_contract(images):
    (first, *_) = make_records(Chunk('train', 42, images, np.arange(10)))
    example = tf.train.Example.FromString(first.example).features.feature
    assert example['id'].bytes_list.value == [b'train_00042']
    assert example['label'].int64_list.value == [0]
    (png,) = example['image'].bytes_list.value
    np.testing.assert_array_equal(tf.io.decode_png(png).numpy(), images[0])
    assert first.split == choose_split('train_00042')


def test_ids_count_through_the_training_batches_and_anew_in_the_test_batch(images, tmp_path):
    batch = cifar10.Batch('', np.concatenate([images] * 60), np.tile(np.arange(10), 60))
    files = tfrecords.spill_batches([batch._replace(name=name) for name in cifar10.BATCHES], tmp_path)
    chunks = [tfrecords.read_chunk(file) for file in files]
    assert [(chunk.prefix, chunk.first, len(chunk.labels)) for chunk in chunks[:4]] == [
        ('train', 0, 500),
        ('train', 500, 100),
        ('train', 600, 500),
        ('train', 1100, 100),
    ]
    assert [(chunk.prefix, chunk.first) for chunk in chunks[-2:]] == [('test', 0), ('test', 500)]
    np.testing.assert_array_equal(chunks[1].images, batch.images[500:])
    np.testing.assert_array_equal(chunks[1].labels, batch.labels[500:])


@pytest.mark.parametrize('limit', [60, 61, 119])
def test_a_limit_takes_the_same_share_of_every_batch(sample_archive, limit):
    batches = limit_batches(cifar10.read_archive(sample_archive), limit)
    counts = [len(batch.labels) for batch in batches]
    assert sum(counts) == limit
    assert max(counts) - min(counts) <= 1


def test_counts_are_by_split_and_class(images, tmp_path):
    chunk = Chunk('test', 0, images[:3], np.array([4, 4, 9]))
    with beam.Pipeline(argv=list(BeamConfig().args)) as pipeline:
        counts = pipeline | beam.Create([chunk]) | tfrecords.WriteSplits(tmp_path, dict.fromkeys(features.SPLITS, 1))
        assert_that(counts, equal_to([(('test', 4), 2), (('test', 9), 1)]))


def test_a_data_folder_holds_every_record_once_and_a_true_manifest(sample_archive, tmp_path):
    batches = cifar10.read_archive(sample_archive)
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
    expected = {f'test_{number:05d}': label for number, label in enumerate(batches[-1].labels)}
    train = np.concatenate([batch.labels for batch in batches[:-1]])
    expected |= {f'train_{number:05d}': label for number, label in enumerate(train)}
    assert seen == expected


def test_large_splits_are_sharded(monkeypatch, sample_archive, tmp_path):
    monkeypatch.setattr(tfrecords, 'RECORDS_PER_SHARD', 30)
    write(cifar10.read_archive(sample_archive), tmp_path / 'd')
    assert len(list((tmp_path / 'd' / 'train').iterdir())) == 3


def test_the_same_data_is_recognised_and_other_data_refused(sample_archive, tmp_path, monkeypatch):
    out = tmp_path / 'd'
    assert not is_written(out, SOURCE, None)
    check_vacant(out)
    write(cifar10.read_archive(sample_archive), out)
    assert is_written(out, SOURCE, None)
    assert not is_written(out, SOURCE, 50)
    assert not is_written(out, Source(kind='archive', name='b', sha256='b' * 64), None)
    monkeypatch.setattr(manifest.metadata, 'version', lambda name: '99')
    assert not is_written(out, SOURCE, None)
    with pytest.raises(UsageError, match=r'already holds other data \(archive a\.tar\.gz, limit None'):
        check_vacant(out)


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    check_vacant(tmp_path)
    (tmp_path / 'thesis.tex').write_text('years of work')
    for path in (tmp_path, tmp_path / 'thesis.tex'):
        with pytest.raises(UsageError, match='was not written by this command'):
            check_vacant(path)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / 'manifest.json').write_text('{"source"')
    with pytest.raises(DataError, match=r'manifest\.json is not JSON'):
        is_written(tmp_path, SOURCE, None)


def test_a_run_replaces_its_own_sample_when_it_changed(tmp_path):
    out, beam_config = tmp_path / 'd', BeamConfig()
    data.write_from_sample(SampleConfig(train=50, test=10), out, limit=None, beam=beam_config)
    with pytest.raises(UsageError, match='already holds other data'):
        data.write_from_sample(SampleConfig(train=60, test=10), out, limit=None, beam=beam_config)
    note = data.write_from_sample(SampleConfig(train=60, test=10), out, limit=None, beam=beam_config, replace=True)
    assert note.endswith(f'10 test written to {out}')


def test_a_limit_that_empties_a_split_is_refused_and_leaves_nothing(sample_archive, tmp_path):
    with pytest.raises(DataError, match=r'leaves no record for .*val'):
        write(cifar10.read_archive(sample_archive), tmp_path / 'd', limit=6)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(sample_archive, tmp_path, monkeypatch):
    def fail(chunk):
        raise RuntimeError('disk full')

    monkeypatch.setattr(tfrecords, 'make_records', fail)
    with pytest.raises(RuntimeError, match='disk full'):
        write(cifar10.read_archive(sample_archive), tmp_path / 'd')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_data_command_leaves_nothing_that_looks_finished_and_the_next_one_finishes(sample_archive, tmp_path):
    command = [sys.executable, '-m', 'pipeline', 'data', '--archive', str(sample_archive), '--out', str(tmp_path / 'd')]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob('.d.partial-*')) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob('.d.partial-*'))
    assert not (tmp_path / 'd').exists()
    answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert 'written to' in answer.stdout
    assert [path.name for path in tmp_path.iterdir()] == ['d']
