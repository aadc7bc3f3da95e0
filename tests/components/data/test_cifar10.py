"""The batch files of CIFAR-10, and archives that must be refused."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from components.data import archive, cifar10, sample
from components.errors import DataError
from tests.conftest import write_archive

RECORD = bytes([3]) + bytes(cifar10.RECORD_BYTES - 1)


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes | None]]) -> Path:
    """Writes a tar with any kind of member; a member without bytes has no content."""
    with tarfile.open(path, 'w:gz') as tar:
        for member, raw in members:
            if raw is not None:
                member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw) if raw is not None else None)
    return path


def write_batches(folder: Path, names=cifar10.BATCHES, records: int = 2) -> list[cifar10.BatchFile]:
    """Writes batch files with equal records."""
    for name in names:
        (folder / name).write_bytes(RECORD * records)
    return [cifar10.BatchFile(folder / name, records) for name in names]


@pytest.fixture
def extract(tmp_path):
    """Extracts an archive; checks that nothing is written anywhere but in the folder for the batch files."""
    folder = tmp_path / 'extracted'
    folder.mkdir()

    def run(path: Path) -> list[cifar10.BatchFile]:
        before = set(tmp_path.rglob('*'))
        try:
            return cifar10.extract_batches(path, folder)
        finally:
            written = set(tmp_path.rglob('*')) - before
            assert {file.name for file in written} <= set(cifar10.BATCHES)
            assert {file.parent for file in written} <= {folder}

    return run


def test_a_record_is_label_then_red_green_blue_planes_row_by_row(tmp_path):
    raw = bytes([7]) + bytes([10] * 1024) + bytes([20] * 1024) + bytes(range(256)) * 4
    (tmp_path / 'b').write_bytes(raw)
    batch = cifar10.read_records(tmp_path / 'b', 0, 1)
    assert batch.labels.tolist() == [7]
    assert batch.images.shape == (1, 32, 32, 3)
    assert batch.images[0, 0, 0].tolist() == [10, 20, 0]
    assert batch.images[0, 0, 31].tolist() == [10, 20, 31]
    assert batch.images[0, 1, 0].tolist() == [10, 20, 32]


def test_what_is_written_is_read_back_whole_or_in_part(images, tmp_path):
    labels = np.arange(10)
    file = cifar10.write_batch(tmp_path / 'b', images, labels)
    assert file == (tmp_path / 'b', 10)
    for start, length in ((0, 10), (3, 4), (9, 1)):
        batch = cifar10.read_records(file.path, start, length)
        np.testing.assert_array_equal(batch.images, images[start : start + length])
        np.testing.assert_array_equal(batch.labels, labels[start : start + length])


def test_a_truncated_batch_names_file_and_record():
    with pytest.raises(DataError, match=r'data_batch_2\.bin is truncated: .* 73 bytes of record 2'):
        cifar10.check_batch('data_batch_2.bin', bytes(2 * cifar10.RECORD_BYTES + 73))


def test_a_label_over_nine_names_file_and_record():
    raw = bytearray(3 * cifar10.RECORD_BYTES)
    raw[2 * cifar10.RECORD_BYTES] = 11
    with pytest.raises(
        DataError, match=r'test_batch\.bin has label 11 in record 2, expected 0-9 \(1 of 3 records are wrong\)'
    ):
        cifar10.check_batch('test_batch.bin', bytes(raw))


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match='holds no records'):
        cifar10.check_batch('data_batch_1.bin', b'')


def test_a_damaged_batch_in_an_archive_is_named_with_the_archive(tmp_path, extract):
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo('f/data_batch_4.bin'), RECORD + b'x')])
    with pytest.raises(DataError, match=r'a\.tar\.gz: data_batch_4\.bin is truncated: .* 1 bytes of record 1'):
        extract(path)


def test_archives_of_any_record_count_are_read_in_the_official_order(tmp_path, extract):
    write_archive(tmp_path / 'a.tar.gz', reversed(write_batches(tmp_path, records=4)))
    batches = extract(tmp_path / 'a.tar.gz')
    assert [batch.path.name for batch in batches] == list(cifar10.BATCHES)
    assert [batch.records for batch in batches] == [4] * 6
    assert [batch.path.read_bytes() for batch in batches] == [RECORD * 4] * 6


def test_folders_and_other_files_in_an_archive_are_left_alone(tmp_path, extract):
    folder = tarfile.TarInfo('f')
    folder.type = tarfile.DIRTYPE
    others = [(folder, None), (tarfile.TarInfo('f/readme.html'), b'hello')]
    members = [(tarfile.TarInfo(f'f/{name}'), RECORD) for name in cifar10.BATCHES]
    assert len(extract(write_tar(tmp_path / 'a.tar.gz', [*others, *members]))) == 6


def test_missing_batches_are_named(tmp_path, extract):
    names = [name for name in cifar10.BATCHES if name not in ('data_batch_3.bin', 'test_batch.bin')]
    write_archive(tmp_path / 'a.tar.gz', write_batches(tmp_path, names))
    with pytest.raises(DataError, match=r'lacks data_batch_3\.bin, test_batch\.bin'):
        extract(tmp_path / 'a.tar.gz')


@pytest.mark.parametrize(
    ('member', 'kind'),
    [
        ('cifar-10-batches-py/data_batch_1', r'Python \(pickle\) version of CIFAR-10 .*: cifar-10-binary\.tar\.gz'),
        ('cifar-10-batches-mat/data_batch_1.mat', r'Matlab version of CIFAR-10 .*: cifar-10-binary\.tar\.gz'),
        ('cifar-100-python/train', r'Python \(pickle\) version of CIFAR-100 .*: cifar-100-binary\.tar\.gz'),
        ('cifar-100-matlab/train.mat', r'Matlab version of CIFAR-100 .*: cifar-100-binary\.tar\.gz'),
    ],
)
def test_a_different_kind_of_cifar_is_named(tmp_path, extract, member, kind):
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo(member), b'x')])
    with pytest.raises(DataError, match=f'{kind}.$'):
        extract(path)


@pytest.mark.parametrize('name', ['/etc/passwd', '../data_batch_1.bin', 'a/../../data_batch_1.bin'])
def test_a_member_outside_its_folder_is_refused(tmp_path, extract, name):
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo(name), b'x')])
    with pytest.raises(DataError, match='outside its folder'):
        extract(path)


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_refused(tmp_path, extract, kind):
    member = tarfile.TarInfo('f/data_batch_1.bin')
    member.type, member.linkname = kind, '/etc/passwd'
    with pytest.raises(DataError, match='has a link'):
        extract(write_tar(tmp_path / 'a.tar.gz', [(member, None)]))


def test_a_device_is_refused(tmp_path, extract):
    member = tarfile.TarInfo('f/data_batch_1.bin')
    member.type = tarfile.FIFOTYPE
    with pytest.raises(DataError, match='not a regular file'):
        extract(write_tar(tmp_path / 'a.tar.gz', [(member, None)]))


def test_an_oversized_member_is_refused_before_it_is_read(tmp_path, extract, monkeypatch):
    monkeypatch.setattr(archive, 'MAX_MEMBER_BYTES', 1000)
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo('f/data_batch_1.bin'), bytes(1001))])
    with pytest.raises(DataError, match=r'1,001 bytes.*over 1,000 bytes are refused'):
        extract(path)


def test_a_batch_that_is_there_twice_is_refused(tmp_path, extract):
    members = [(tarfile.TarInfo(f'{folder}/data_batch_1.bin'), RECORD) for folder in 'fg']
    with pytest.raises(DataError, match=r'data_batch_1\.bin twice'):
        extract(write_tar(tmp_path / 'a.tar.gz', members))


@pytest.mark.parametrize(
    'content',
    [b'', b'GIF89a not a tar', gzip.compress(b'no tar in here' * 100)],
    ids=['empty', 'picture', 'gzip_without_tar'],  # not the bytes themselves: gzip writes the time into them
)
def test_a_file_that_is_not_an_archive_is_refused(tmp_path, extract, content):
    path = tmp_path / 'a.tar.gz'
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'is not a gzipped tar|cut short|lacks'):
        extract(path)


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, extract, share):
    path = tmp_path / 'a.tar.gz'
    write_archive(path, sample.write_sample(tmp_path, train=50, test=10, seed=0))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DataError, match='cut short or damaged'):
        extract(path)


@pytest.mark.parametrize('level', [0, 9], ids=['stored', 'compressed'])  # stored: only the CRC shows a changed pixel
def test_an_archive_with_a_flipped_byte_is_refused(tmp_path, extract, level):
    path = tmp_path / 'a.tar.gz'
    write_archive(path, sample.write_sample(tmp_path, train=50, test=10, seed=0))
    raw = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), level, mtime=0))
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataError, match='cut short or damaged'):
        extract(path)


def test_a_missing_archive_is_named(tmp_path, extract):
    with pytest.raises(DataError, match=r'nothing\.tar\.gz does not exist'):
        extract(tmp_path / 'nothing.tar.gz')


def test_a_folder_that_cannot_be_written_is_not_blamed_on_the_archive(sample_archive, tmp_path):
    with pytest.raises(FileNotFoundError):
        cifar10.extract_batches(sample_archive, tmp_path / 'nowhere')


def test_real_images_are_read(real_archive, extract):
    batches = [cifar10.read_records(file.path, 0, file.records) for file in extract(real_archive)]
    assert [len(batch.labels) for batch in batches] == [2000] * 6
    counts = np.bincount(batches[-1].labels, minlength=10)
    assert counts.min() > 150
    assert 100 < batches[0].images.mean() < 140
