"""Staging folders: what is left behind by killed processes is removed, and nothing else."""

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
