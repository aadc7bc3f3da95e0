"""Whether a data folder holds the data that is asked for, something else, or nothing."""

import json

import pytest

from components.data import manifest
from components.data.manifest import MANIFEST_NAME, Source, check_vacant, describe_request, find_written
from components.errors import DataError, UsageError

SOURCE = Source(kind='archive', name='a.tar.gz', sha256='a' * 64)


def test_the_same_data_is_recognised_and_different_data_refused(tmp_path, monkeypatch):
    assert find_written(tmp_path, SOURCE, None) is None
    check_vacant(tmp_path)
    written = {**describe_request(SOURCE, None), 'counts': {'train': 1}}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(written))
    assert find_written(tmp_path, SOURCE, None) == written
    assert find_written(tmp_path, SOURCE, 50) is None
    assert find_written(tmp_path, Source(kind='archive', name='b', sha256='b' * 64), None) is None
    monkeypatch.setattr(manifest.metadata, 'version', lambda name: '99')
    assert find_written(tmp_path, SOURCE, None) is None
    with pytest.raises(UsageError, match=r'already holds different data \(archive a\.tar\.gz, limit None'):
        check_vacant(tmp_path)


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    check_vacant(tmp_path)
    (tmp_path / 'thesis.tex').write_text('years of work')
    for path in (tmp_path, tmp_path / 'thesis.tex'):
        with pytest.raises(UsageError, match='was not written by this command'):
            check_vacant(path)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / 'manifest.json').write_text('{"source"')
    with pytest.raises(DataError, match=r'manifest\.json is not JSON'):
        find_written(tmp_path, SOURCE, None)
