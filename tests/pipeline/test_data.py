"""The `data` command: what it refuses, and how soon, and what a killed one leaves."""

import hashlib
import signal
import subprocess
import sys
import time

import pytest

from components.data import cifar10
from components.data.download import RemoteFile
from components.data.manifest import read_contract, read_manifest
from components.errors import DataError, UsageError
from components.progress import listen
from pipeline import data
from pipeline.config import BeamConfig, SampleConfig
from tests.components.data import test_cifar100
from tests.conftest import PROJECT, write_archive

# Prints which of the slow libraries the command has imported when it ends.
CALL = """
import sys
from pipeline.__main__ import main
code = main(sys.argv[1:])
print(code, [name for name in ('tensorflow', 'apache_beam', 'tfx') if name in sys.modules])
"""


def call(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, '-c', CALL, 'data', *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize('source', ['--sample', '--archive'])
def test_a_folder_that_exists_is_refused_before_beam_and_tensorflow_are_imported(source, sample_archive, tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    answer = call('--out', tmp_path, source, *([sample_archive] if source == '--archive' else []))
    assert answer.stdout == '2 []\n', answer.stderr
    assert answer.stderr == (
        f'error: {tmp_path} exists and was not written by this command; give a different --out, or remove it.\n'
    )


def test_a_damaged_archive_is_refused_before_beam_and_tensorflow_are_imported_and_leaves_nothing(
    sample_archive, tmp_path
):
    archive = tmp_path / 'a.tar.gz'
    archive.write_bytes(sample_archive.read_bytes()[:100_000])
    answer = call('--out', tmp_path / 'd', '--archive', archive)
    assert answer.stdout == '1 []\n', answer.stderr
    assert 'a.tar.gz is cut short or damaged' in answer.stderr
    assert list(tmp_path.iterdir()) == [archive]


def test_the_records_that_are_written_are_counted(sample_archive, tmp_path):
    seen = []
    with listen(seen.append):
        data.write_from_archive(sample_archive, tmp_path / 'd', limit=None, beam=BeamConfig())
    ended = {report.what: (report.done, report.total) for report in seen if report.is_finished}
    assert ended['extraction'] == (6, 6)
    assert ended['records'] == (120, 120)


def test_an_archive_is_written_once_and_leaves_no_batch_files(sample_archive, tmp_path):
    options = {'limit': None, 'beam': BeamConfig()}
    note = data.write_from_archive(sample_archive, tmp_path / 'd', **options)
    assert note.endswith(f'20 test written to {tmp_path}/d')
    assert [path.name for path in tmp_path.iterdir()] == ['d']
    again = data.write_from_archive(sample_archive, tmp_path / 'd', **options)
    assert again.endswith(f'20 test already in {tmp_path}/d: nothing to do')
    with pytest.raises(UsageError, match='already holds different data'):
        data.write_from_archive(sample_archive, tmp_path / 'd', limit=60, beam=BeamConfig())


def test_an_archive_without_a_batch_leaves_nothing(sample_archive, tmp_path):
    folder = tmp_path / 'batches'
    folder.mkdir()
    write_archive(tmp_path / 'a.tar.gz', cifar10.extract_batches(sample_archive, folder)[1:])
    with pytest.raises(DataError, match=r'lacks data_batch_1\.bin'):
        data.write_from_archive(tmp_path / 'a.tar.gz', tmp_path / 'd', limit=None, beam=BeamConfig())
    assert {path.name for path in tmp_path.iterdir()} == {'batches', 'a.tar.gz'}


def test_cifar_100_is_recognised_and_written_with_the_labels_that_were_asked_for(tmp_path):
    archive = test_cifar100.write_archive(
        tmp_path / 'a.tar.gz', test_cifar100.make_members(train=test_cifar100.make_records(0, 60).tobytes())
    )
    for labels, names in (('fine', test_cifar100.FINE), ('coarse', test_cifar100.COARSE)):
        out = tmp_path / labels
        options = {'limit': None, 'beam': BeamConfig(), 'labels': labels}
        assert 'written to' in data.write_from_archive(archive, out, **options)
        manifest = read_manifest(out)
        assert read_contract(manifest) == (names, 32, True)
        assert manifest['source']['name'] == f'a.tar.gz, {labels} labels'
        assert (sum(manifest['counts'].values()), manifest['counts']['test']) == (66, 6)
        assert list(manifest['counts_by_class']['test']) == list(names)
        assert data.write_from_archive(archive, out, **options).endswith('nothing to do')
    with pytest.raises(UsageError, match='already holds different data'):
        data.write_from_archive(archive, tmp_path / 'coarse', limit=None, beam=BeamConfig())


def test_labels_are_refused_for_data_that_has_one_kind_of_them(sample_archive, tmp_path):
    with pytest.raises(UsageError, match=r'^--labels chooses .* of CIFAR-100, and \S+ is CIFAR-10; leave it out\.$'):
        data.write_from_archive(sample_archive, tmp_path / 'd', limit=None, beam=BeamConfig(), labels='fine')
    with pytest.raises(UsageError, match='cifar10 is CIFAR-10; leave it out'):
        data.write_from_download('cifar10', tmp_path / 'd', limit=None, beam=BeamConfig(), labels='fine')


def test_a_download_whose_sha256_is_not_known_is_written_once(serve_file, tmp_path, monkeypatch):
    archive = test_cifar100.write_archive(
        tmp_path / 'a.tar.gz', test_cifar100.make_members(train=test_cifar100.make_records(0, 60).tobytes())
    )
    content = archive.read_bytes()
    server = serve_file(content)
    remote = RemoteFile(f'{server.base_url}c.tar.gz', len(content), hashlib.md5(content).hexdigest(), 'md5')
    monkeypatch.setitem(data.OFFICIAL_ARCHIVES, 'cifar100', remote)
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.tex').write_text('years of work')
    with pytest.raises(UsageError, match='was not written by this command'):
        data.write_from_download('cifar100', tmp_path / 'other', limit=None, beam=BeamConfig())
    assert server.ranges == [], 'refused before the download'
    assert 'written to' in data.write_from_download('cifar100', tmp_path / 'd', limit=None, beam=BeamConfig())
    source = read_manifest(tmp_path / 'd')['source']
    assert source == {
        'kind': 'download',
        'name': f'{remote.url}, fine labels',
        'sha256': hashlib.sha256(content).hexdigest(),
    }
    again = data.write_from_download('cifar100', tmp_path / 'd', limit=None, beam=BeamConfig())
    assert again.endswith('nothing to do')
    assert len(server.ranges) == 1


def test_a_run_replaces_its_own_sample_when_it_changed(tmp_path):
    out, beam_config = tmp_path / 'd', BeamConfig()
    data.write_from_sample(SampleConfig(train=50, test=10), out, limit=None, beam=beam_config)
    with pytest.raises(UsageError, match='already holds different data'):
        data.write_from_sample(SampleConfig(train=60, test=10), out, limit=None, beam=beam_config)
    note = data.write_from_sample(SampleConfig(train=60, test=10), out, limit=None, beam=beam_config, replace=True)
    assert note.endswith(f'10 test written to {out}')


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
