"""What ImportExampleGen says about a data folder that it cannot read, and how TFX lists one in an S3 store."""

import os
import time

import pytest
import tensorflow as tf
from tfx.dsl.io import fileio

from components.data.manifest import check_splits
from components.errors import DataRefusedError, UsageError
from components.example_gen import Executor, check_readable
from components.places import locate


def write_data(folder, name: str, kind: str) -> None:
    for split in ('train', 'val', 'test'):
        (folder / split).mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / split / name), kind) as writer:
            for _ in range(50):
                writer.write(os.urandom(1000))


def flip_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize(('name', 'kind'), [('a.tfrecord.gz', 'GZIP'), ('a.tfrecord', '')])
@pytest.mark.parametrize('damage', [flip_byte, lambda content: content[: len(content) * 2 // 3]])
def test_a_damaged_file_is_named_with_its_split_and_record(damage, name, kind, tmp_path):
    write_data(tmp_path, name, kind)
    check_readable(str(tmp_path))
    file = tmp_path / 'val' / name
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.raises(
        DataRefusedError, match=rf'val: {file} is corrupted or cut short, and cannot be read past record \d+; put'
    ):
        check_readable(str(tmp_path))
    file.write_bytes(whole)
    check_readable(str(tmp_path))


def test_tfx_finds_the_files_of_a_split_with_their_sizes_and_times(make_bucket):
    uri = make_bucket('s3') + '/cifar10'
    for name in ('train/data-1', 'train/data-0', 'val/data-0', 'train/other/data-0'):
        (locate(uri) / name).write_text('12345')
    files = fileio.glob(f'{uri}/train/data-*')
    assert files == [f'{uri}/train/data-0', f'{uri}/train/data-1']
    stat = fileio.stat(files[0])
    assert stat.length == 5
    assert abs(stat.mtime_nsec / 1e9 - time.time()) < 60
    assert fileio.glob(f'{uri}/test/*') == []


@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_data_without_a_split_is_refused_before_anything_starts(make_bucket, scheme):
    uri = make_bucket(scheme) + '/cifar10'
    for split in ('train', 'val'):
        (locate(uri) / split / 'data').write_text('records')
    for check in (check_splits, lambda uri: Executor().Do({}, {}, {'input_base': uri})):
        with pytest.raises(UsageError, match=rf'{uri}/test has no TFRecord files; --data takes'):
            check(uri)


@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_a_damaged_file_is_named_by_its_uri(make_bucket, scheme):
    uri = make_bucket(scheme) + '/cifar10'
    (locate(uri) / 'train' / 'data.tfrecord').write_text('no record at all')
    with pytest.raises(DataRefusedError, match=f'train: {uri}/train/data.tfrecord is corrupted or cut short'):
        check_readable(uri)
