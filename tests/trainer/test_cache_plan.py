"""Where the trunk's outputs are cached, decided from planted figures, and how much memory is free."""

import shutil
from types import SimpleNamespace

import psutil
import pytest

from components.errors import TrainingError
from trainer import cache_plan
from trainer.cache_plan import CacheNeed, FreeSpace, RowSeconds, choose_cache, plan_cache
from trainer.free_memory import measure_free_memory

GB = 10**9
ROW = 10**6
NEED = CacheNeed(rows=10_000, row_bytes=ROW, epochs=10, rows_per_epoch=10_000)  # 10 GB
CPU = RowSeconds(compute=0.030, read=0.001)
GPU = RowSeconds(compute=0.0003, read=0.002)


@pytest.mark.parametrize(
    ('need', 'free', 'seconds', 'kind'),
    [
        pytest.param(NEED, FreeSpace(14 * GB, 99 * GB), CPU, 'memory', id='three-quarters-of-14-hold-it'),
        pytest.param(NEED, FreeSpace(13 * GB, 99 * GB), CPU, 'disk', id='three-quarters-of-13-do-not'),
        pytest.param(NEED, FreeSpace(14 * GB, 99 * GB), GPU, 'memory', id='a-gpu-with-memory'),
        pytest.param(NEED, FreeSpace(GB, 99 * GB), GPU, 'off', id='a-gpu-faster-than-the-disk'),
        pytest.param(NEED, FreeSpace(GB, 99 * GB), RowSeconds(0.0003, 0.0002), 'disk', id='a-gpu-with-a-fast-disk'),
        pytest.param(NEED, FreeSpace(GB, 13 * GB), CPU, 'off', id='little-memory-and-little-disk'),
        pytest.param(NEED._replace(epochs=1), FreeSpace(GB, 99 * GB), CPU, 'off', id='one-epoch'),
        pytest.param(NEED._replace(epochs=2), FreeSpace(GB, 99 * GB), CPU, 'disk', id='two-epochs'),
        pytest.param(NEED._replace(epochs=2), FreeSpace(GB, 99 * GB), RowSeconds(1, 0.6), 'off', id='two-slow-disk'),
        pytest.param(NEED._replace(epochs=3), FreeSpace(GB, 99 * GB), RowSeconds(1, 0.6), 'disk', id='three-slow-disk'),
        pytest.param(NEED._replace(rows=40_000), FreeSpace(GB, 99 * GB), CPU, 'disk', id='four-views-for-ten-epochs'),
        pytest.param(
            NEED._replace(rows=40_000, epochs=4), FreeSpace(GB, 99 * GB), CPU, 'off', id='four-views-for-four-epochs'
        ),
        pytest.param(NEED, FreeSpace(GB, 99 * GB), None, 'disk', id='several-workers-do-not-time'),
    ],
)
def test_the_decision_follows_from_the_figures(need, free, seconds, kind):
    assert choose_cache(need, free, seconds).kind == kind


def test_the_reason_names_the_figures():
    reason = choose_cache(NEED, FreeSpace(GB, 99 * GB), GPU).reason
    for figure in ('10.00 GB', '1.00 GB', '0.30 ms', '2.00 ms', '203 s', '30 s', '10 epochs'):
        assert figure in reason
    assert '12.00 GB' in choose_cache(NEED, FreeSpace(GB, 12 * GB), GPU).reason


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Makes plans on a machine with 4 GB of memory and 40 GB of disk, and counts the measurements."""
    measured = []

    def make(wanted, need, seconds=CPU):
        def measure():
            measured.append(need)
            return seconds

        return plan_cache(wanted, need, str(tmp_path), measure).kind, len(measured)

    monkeypatch.setattr(cache_plan, 'measure_free_memory', lambda: 4 * GB)
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=40 * GB))
    return make


def test_nothing_is_timed_unless_the_decision_depends_on_it(plan):
    assert plan('auto', NEED._replace(rows=3_000)) == ('memory', 0)
    assert plan('auto', NEED._replace(rows=40_000)) == ('off', 0)
    assert plan('disk', NEED) == ('disk', 0)
    assert plan('memory', NEED._replace(rows=4_000)) == ('memory', 0)
    assert plan('auto', NEED) == ('disk', 1)
    assert plan('auto', NEED, GPU) == ('off', 2)


@pytest.mark.parametrize(('wanted', 'rows', 'free'), [('memory', 5_000, 4), ('disk', 41_000, 40)])
def test_a_configured_cache_without_enough_room_is_an_error(plan, wanted, rows, free):
    with pytest.raises(TrainingError, match=rf'trainer\.cache={wanted} needs .* GB.* and only {free}\.00 GB are free'):
        plan(wanted, NEED._replace(rows=rows))


def write_cgroup(folder, names, limit, usage, reclaimable):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, usage, f'anon 5\n{names[2]} {reclaimable}'), strict=True):
        (folder / ('memory.stat' if name == names[2] else name)).write_text(f'{value}\n')


V2 = ('memory.max', 'memory.current', 'inactive_file')
V1 = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 8,000 bytes free, and a function that measures them with these lines in /proc/self/cgroup."""
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: SimpleNamespace(available=8_000))

    def measure(*lines):
        (tmp_path / 'cgroup').write_text(''.join(f'{line}\n' for line in lines))
        return measure_free_memory(tmp_path / 'cgroup', tmp_path)

    return measure


def test_without_cgroups_what_the_machine_has_free_counts(machine, tmp_path):
    assert machine() == 8_000
    assert machine('0::/some/where') == 8_000
    assert measure_free_memory(tmp_path / 'missing', tmp_path) == 8_000


def test_a_containers_limit_counts_less_what_it_uses_and_cannot_give_back(machine, tmp_path):
    write_cgroup(tmp_path, V2, 5_000, 3_000, 400)
    assert machine('0::/') == 2_400
    write_cgroup(tmp_path, V2, 'max', 3_000, 400)
    assert machine('0::/') == 8_000


def test_the_limits_of_the_parents_count_and_the_tightest_decides(machine, tmp_path):
    write_cgroup(tmp_path / 'a' / 'b', V2, 'max', 100, 0)
    write_cgroup(tmp_path / 'a', V2, 2_000, 1_500, 0)
    assert machine('0::/a/b') == 500


def test_version_1_has_a_folder_for_each_controller(machine, tmp_path):
    write_cgroup(tmp_path / 'memory', V1, 2**63 - 4096, 100, 0)
    write_cgroup(tmp_path / 'memory' / 'docker' / 'x', V1, 1_000, 300, 50)
    assert machine('5:cpu:/docker/x', '4:memory:/docker/x', '0::/') == 750
    # Within the container the path of the host does not exist, and the container's cgroup is the root.
    write_cgroup(tmp_path / 'memory', V1, 900, 300, 50)
    assert machine('4:memory:/docker/of-the-host') == 650


def test_a_container_over_its_limit_has_nothing_free(machine, tmp_path):
    write_cgroup(tmp_path, V2, 1_000, 1_001, 0)
    assert machine('0::/') == 0
