import gzip
import io
import tarfile

import numpy as np
import pytest

from components.data import cifar10, sample
from components.errors import DataError


def make_members(count: int = 2) -> dict[str, bytes]:
    record = bytes([3]) + bytes(cifar10.RECORD_BYTES - 1)
    return dict.fromkeys(cifar10.BATCHES, record * count)


def write_tar(path, members):
    """Members are (TarInfo, bytes or None): anything tar can hold."""
    with tarfile.open(path, 'w:gz') as tar:
        for member, raw in members:
            if raw is not None:
                member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw) if raw is not None else None)
    return path


def test_a_record_is_label_then_red_green_blue_planes_row_by_row():
    raw = bytes([7]) + bytes([10] * 1024) + bytes([20] * 1024) + bytes(range(256)) * 4
    batch = cifar10.parse_batch('b', raw)
    assert batch.labels.tolist() == [7]
    assert batch.images.shape == (1, 32, 32, 3)
    assert batch.images[0, 0, 0].tolist() == [10, 20, 0]
    assert batch.images[0, 0, 31].tolist() == [10, 20, 31]
    assert batch.images[0, 1, 0].tolist() == [10, 20, 32]


def test_serialize_is_the_inverse_of_parse(images):
    labels = np.arange(10)
    batch = cifar10.parse_batch('b', cifar10.serialize_batch(images, labels))
    np.testing.assert_array_equal(batch.images, images)
    np.testing.assert_array_equal(batch.labels, labels)


def test_a_truncated_batch_names_file_and_record():
    with pytest.raises(DataError, match=r'data_batch_2\.bin is truncated: .* 73 bytes of record 2'):
        cifar10.parse_batch('data_batch_2.bin', bytes(2 * cifar10.RECORD_BYTES + 73))


def test_a_label_over_nine_names_file_and_record():
    raw = bytearray(3 * cifar10.RECORD_BYTES)
    raw[2 * cifar10.RECORD_BYTES] = 11
    with pytest.raises(DataError, match=r'test_batch\.bin has label 11 in record 2, expected 0-9'):
        cifar10.parse_batch('test_batch.bin', bytes(raw))


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match='holds no records'):
        cifar10.parse_batch('data_batch_1.bin', b'')


def test_archives_of_any_record_count_are_read_in_the_official_order(tmp_path):
    path = tmp_path / 'a.tar.gz'
    members = make_members(4)
    cifar10.write_archive(path, dict(reversed(members.items())))
    batches = cifar10.read_archive(path)
    assert [batch.name for batch in batches] == list(cifar10.BATCHES)
    assert [len(batch.labels) for batch in batches] == [4] * 6


def test_missing_batches_are_named(tmp_path):
    path = tmp_path / 'a.tar.gz'
    members = make_members()
    del members['data_batch_3.bin'], members['test_batch.bin']
    cifar10.write_archive(path, members)
    with pytest.raises(DataError, match=r'lacks data_batch_3\.bin, test_batch\.bin'):
        cifar10.read_archive(path)


@pytest.mark.parametrize(
    ('member', 'kind'),
    [
        ('cifar-10-batches-py/data_batch_1', r'Python \(pickle\) version'),
        ('cifar-10-batches-mat/data_batch_1.mat', 'Matlab version'),
        ('cifar-100-binary/train.bin', 'CIFAR-100'),
    ],
)
def test_another_kind_of_cifar_is_named(tmp_path, member, kind):
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo(member), b'x')])
    with pytest.raises(DataError, match=f'{kind}.*cifar-10-binary.tar.gz'):
        cifar10.read_archive(path)


@pytest.mark.parametrize('name', ['/etc/passwd', '../data_batch_1.bin', 'a/../../data_batch_1.bin'])
def test_a_member_outside_its_folder_is_refused(tmp_path, name):
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo(name), b'x')])
    with pytest.raises(DataError, match='outside its folder'):
        cifar10.read_archive(path)


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_refused(tmp_path, kind):
    member = tarfile.TarInfo('f/data_batch_1.bin')
    member.type, member.linkname = kind, '/etc/passwd'
    with pytest.raises(DataError, match='has a link'):
        cifar10.read_archive(write_tar(tmp_path / 'a.tar.gz', [(member, None)]))


def test_a_device_is_refused(tmp_path):
    member = tarfile.TarInfo('f/data_batch_1.bin')
    member.type = tarfile.FIFOTYPE
    with pytest.raises(DataError, match='no regular file'):
        cifar10.read_archive(write_tar(tmp_path / 'a.tar.gz', [(member, None)]))


def test_an_oversized_member_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, 'MAX_MEMBER_BYTES', 1000)
    path = write_tar(tmp_path / 'a.tar.gz', [(tarfile.TarInfo('f/data_batch_1.bin'), bytes(1001))])
    with pytest.raises(DataError, match=r'1,001 bytes.*over 1,000 bytes are refused'):
        cifar10.read_archive(path)


def test_a_batch_that_is_there_twice_is_refused(tmp_path):
    raw = make_members()['data_batch_1.bin']
    members = [(tarfile.TarInfo('f/data_batch_1.bin'), raw), (tarfile.TarInfo('g/data_batch_1.bin'), raw)]
    with pytest.raises(DataError, match=r'data_batch_1\.bin twice'):
        cifar10.read_archive(write_tar(tmp_path / 'a.tar.gz', members))


@pytest.mark.parametrize(
    'content',
    [b'', b'GIF89a not a tar', gzip.compress(b'no tar in here' * 100)],
    ids=['empty', 'picture', 'gzip_without_tar'],  # gzip writes the time: a test's name would change with it
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / 'a.tar.gz'
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'is not a gzipped tar|cut short|lacks'):
        cifar10.read_archive(path)


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, share):
    path = tmp_path / 'a.tar.gz'
    sample.write_sample_archive(path, train=50, test=10, seed=0)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DataError, match='cut short or damaged'):
        cifar10.read_archive(path)


def test_an_archive_with_a_flipped_byte_is_refused(tmp_path):
    path = tmp_path / 'a.tar.gz'
    sample.write_sample_archive(path, train=50, test=10, seed=0)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataError):
        cifar10.read_archive(path)


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(DataError, match=r'nothing\.tar\.gz does not exist'):
        cifar10.read_archive(tmp_path / 'nothing.tar.gz')


def test_the_sample_is_the_same_for_the_same_seed_and_another_for_another(tmp_path):
    paths = [tmp_path / name for name in 'abc']
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        sample.write_sample_archive(path, train=50, test=10, seed=seed)
    same, again, other = (path.read_bytes() for path in paths)
    assert same == again
    assert same != other


def test_the_sample_has_every_class_in_every_batch(sample_archive):
    for batch in cifar10.read_archive(sample_archive):
        assert set(batch.labels) == set(range(10))


def test_sample_classes_differ_in_colour():
    random = np.random.default_rng(0)
    means = []
    for label in range(10):
        drawn = np.stack([sample.draw_image(label, random) for _ in range(20)]).astype(float)
        saturated = np.ptp(drawn, axis=-1) > 60
        means.append(drawn[saturated].mean(axis=0))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]]
    assert min(distances) > 20


def test_real_images_are_read(real_archive):
    batches = cifar10.read_archive(real_archive)
    assert [len(batch.labels) for batch in batches] == [2000] * 6
    counts = np.bincount(batches[-1].labels, minlength=10)
    assert counts.min() > 150
    assert 100 < batches[0].images.mean() < 140
