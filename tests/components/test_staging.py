"""Staging: what killed processes left behind is removed, nothing else, and a failed write leaves nothing."""

import pytest

from components import staging


def test_staging_removes_what_ended_processes_of_this_host_left(tmp_path):
    with staging.stage_folder(tmp_path / 'd') as live:
        mine = live.name
    stem, _, _ = mine.rpartition('-')
    dead, other_host = tmp_path / f'{stem}-999999999', tmp_path / '.d.partial-elsewhere-1'
    alive = tmp_path / f'{stem}-1'
    for folder in (dead, other_host, alive):
        folder.mkdir()
    with staging.stage_folder(tmp_path / 'd'):
        assert not dead.exists()
    assert other_host.exists()
    assert alive.exists()


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path):
    staging.write_text(tmp_path / 'a.json', 'new')
    assert (tmp_path / 'a.json').read_text() == 'new'
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError, match='folder'):
        staging.write_text(tmp_path / 'folder', 'text')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.json', 'folder']
