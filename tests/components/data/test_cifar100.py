"""CIFAR-100's archive: which labels are written, and archives that must be refused."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from components.data import archive, cifar10, cifar100
from components.errors import DataError

FINE, COARSE = ('apple', 'baby', 'bear', 'bee'), ('food', 'people', 'animals')
RECORDS = 6


def make_records(seed: int, count: int = RECORDS) -> np.ndarray:
    """Draws records of CIFAR-100: the coarse label, the fine label, and the pixels; uint8 [count, 3074]."""
    records = np.random.default_rng(seed).integers(0, 256, (count, 3074), np.uint8)
    records[:, 0], records[:, 1] = np.arange(count) % len(COARSE), np.arange(count) % len(FINE)
    return records


def make_members(**changes: bytes | None) -> dict[str, bytes]:
    """Makes the members of an archive by name; `changes` replaces some by their stem, and None leaves one out."""
    members = {
        'fine_label_names.txt': '\n'.join([*FINE, '']).encode(),
        'train.bin': make_records(0).tobytes(),
        'test.bin': make_records(1).tobytes(),
        'coarse_label_names.txt': '\n'.join([*COARSE, '', '']).encode(),
    }
    members |= {next(name for name in members if Path(name).stem == stem): raw for stem, raw in changes.items()}
    return {name: raw for name, raw in members.items() if raw is not None}


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    """Writes an archive in the official layout."""
    with tarfile.open(path, 'w:gz') as tar:
        for name, raw in members.items():
            member = tarfile.TarInfo(f'cifar-100-binary/{name}')
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


@pytest.fixture
def extract(tmp_path):
    """Extracts an archive of the given members into the folder `batches`."""

    def run(members: dict[str, bytes], labels: cifar100.Labels = 'fine'):
        (tmp_path / 'batches').mkdir()
        return cifar100.extract_batches(write_archive(tmp_path / 'a.tar.gz', members), tmp_path / 'batches', labels)

    return run


@pytest.mark.parametrize(('labels', 'names', 'column'), [('fine', FINE, 1), ('coarse', COARSE, 0)])
def test_the_labels_that_were_asked_for_are_written_with_the_archives_own_names(extract, labels, names, column):
    batches, contract = extract(make_members(), labels)
    assert contract == (names, 32, True)
    assert [batch.path.name for batch in batches] == ['data_batch_1.bin', 'test_batch.bin']
    for seed, batch in enumerate(batches):
        records, read = make_records(seed), cifar10.read_records(batch.path, 0, batch.records)
        assert read.labels.tolist() == records[:, column].tolist()
        np.testing.assert_array_equal(read.images.transpose(0, 3, 1, 2).reshape(RECORDS, -1), records[:, 2:])


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'train': make_records(0).tobytes()[:-5]}, r'train\.bin is truncated: .* 3,069 bytes of record 5'),
        ({'test': b''}, r'test\.bin holds no records'),
        ({'test': bytes([0, 4]) + bytes(3072)}, r'test\.bin, fine labels, has label 4 in record 0, expected 0-3'),
        ({'test': bytes([3, 0]) + bytes(3072)}, r'test\.bin, coarse labels, has label 3 in record 0, expected 0-2'),
        ({'test': None}, r'lacks test\.bin; an archive in the layout of cifar-100-binary\.tar\.gz is needed'),
        ({'coarse_label_names': None}, r'lacks coarse_label_names\.txt'),
        ({'fine_label_names': b'a\nb\na\n'}, r'fine_label_names\.txt has 3 class names, of which 2 differ'),
        ({'fine_label_names': b'\n'}, r'fine_label_names\.txt has 0 class names'),
        ({'fine_label_names': b'\xff\xfe'}, r'fine_label_names\.txt is not text'),
    ],
)
def test_a_damaged_archive_is_named_with_its_member(extract, tmp_path, changes, sentence):
    with pytest.raises(DataError, match=sentence) as refusal:
        extract(make_members(**changes))
    assert str(tmp_path / 'a.tar.gz') in str(refusal.value)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize('share', [0.2, 0.6, 0.95])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, share):
    path = write_archive(tmp_path / 'a.tar.gz', make_members())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    (tmp_path / 'batches').mkdir()
    with pytest.raises(DataError, match='cut short or damaged'):
        cifar100.extract_batches(path, tmp_path / 'batches', 'fine')


def test_the_members_say_which_of_the_two_an_archive_is(sample_archive, tmp_path):
    formats = (cifar10.FORMAT, cifar100.FORMAT)
    assert archive.find_format(sample_archive, formats) == cifar10.FORMAT
    assert archive.find_format(write_archive(tmp_path / 'a.tar.gz', make_members()), formats) == cifar100.FORMAT
    with pytest.raises(DataError, match=r'has neither the files of CIFAR-10 \(data_batch_1\.bin, \.\.\.\), nor'):
        archive.find_format(write_archive(tmp_path / 'b.tar.gz', {'cat.jpg': b'x'}), formats)


def test_the_official_layout_has_these_members():
    assert set(cifar100.FORMAT.members) == {'train.bin', 'test.bin', 'fine_label_names.txt', 'coarse_label_names.txt'}
