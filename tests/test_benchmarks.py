"""The harness, with sides that do nothing, and one benchmark as a user runs it."""

import importlib
import json
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from benchmarks import harness, transform
from components.errors import DataError
from tests.conftest import PROJECT

BENCHMARKS = (
    *(
        'engines',
        'evaluator',
        'export',
        'feature_extraction',
        'frozen_pass',
        'input',
        'onnx',
        'predict',
        'serving',
        'training',
        'transform',
    ),
)


def record(calls: list[str], name: str):
    """Makes a side that only records that it was called."""
    return lambda: calls.append(name)


def run_recorded(rounds: int) -> tuple[list[str], dict]:
    calls = []
    result = harness.run_benchmark('Nothing', record(calls, 'ours'), record(calls, 'rival'), rounds=rounds, images=7)
    return calls, result


def test_each_side_warms_up_and_which_one_goes_first_alternates():
    calls, result = run_recorded(rounds=3)
    assert calls == ['ours', 'rival', 'ours', 'rival', 'rival', 'ours', 'ours', 'rival']
    assert result['rounds'] == 3
    assert result['images'] == 7


def test_the_medians_do_not_include_the_warm_up(monkeypatch, capsys):
    seconds = {'ours': [100, 1, 2, 9], 'rival': [100, 30, 10, 20]}
    left = {name: iter(values) for name, values in seconds.items()}
    monkeypatch.setattr(harness, '_measure_seconds', lambda work: next(left[work()]))
    result = harness.run_benchmark('Counted', lambda: 'ours', lambda: 'rival', rounds=3)
    assert result == {
        'ours': statistics.median(seconds['ours'][1:]),
        'rival': statistics.median(seconds['rival'][1:]),
        'ratio': 10,
        'rounds': 3,
    }
    assert 'median: ours 2.000 s, rival 20.000 s, rival / ours = 10.00' in capsys.readouterr().out


def test_the_ratio_is_over_one_when_the_rival_is_slower():
    result = harness.run_benchmark('Sleep', lambda: None, lambda: time.sleep(0.01), rounds=2)
    assert result['rival'] > 0.01
    assert result['ratio'] > 1


def test_what_the_sides_print_goes_to_standard_error(capfd):
    def chat():
        sys.stdout.write('from Python\n')
        subprocess.run(['echo', 'from a process'], check=True)

    harness.finish(harness.run_benchmark('Chatter', chat, chat, rounds=1))
    out, error = capfd.readouterr()
    assert 'from' not in out
    assert 'from Python' in error
    assert 'from a process' in error
    assert set(json.loads(out.splitlines()[-1])) == {'ours', 'rival', 'ratio', 'rounds'}


def test_a_side_that_fails_ends_the_benchmark_and_standard_output_is_restored(capfd):
    with pytest.raises(ZeroDivisionError):
        harness.run_benchmark('Failing', lambda: 1 / 0, lambda: None, rounds=1)
    sys.stdout.write('back\n')
    assert 'back' in capfd.readouterr().out


@pytest.mark.parametrize('arguments', [['--rounds', '0'], ['--rounds', 'many'], ['--images', '-1'], ['--round', '3']])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        harness.build_parser('Nothing', images=10).parse_args(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_every_benchmark_has_its_own_defaults():
    args = harness.build_parser('Nothing', images=10, rounds=4).parse_args([])
    assert (args.images, args.rounds) == (10, 4)


@pytest.mark.parametrize(('flags', 'expected'), [('fpu amx_bf16', 'AMX yes, AVX512-BF16 no'), ('fpu', 'AMX no')])
def test_the_machine_is_described_by_its_flags(flags, expected, tmp_path, monkeypatch):
    info = tmp_path / 'cpuinfo'
    info.write_text(f'processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n')
    monkeypatch.setattr(harness, '_CPU_INFO', info)
    assert harness.describe_machine().startswith(f'Some CPU: {expected}')


def test_without_real_images_the_embedded_sample_is_used_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, '_REAL_ARCHIVE', tmp_path / 'none.tar.gz')
    sentence, batches = harness.load_batches(tmp_path, 60)
    assert sum(batch.records for batch in batches) == 60
    assert 'embedded sample' in sentence


def test_real_images_are_used_if_they_are_there_and_never_fewer_than_asked_for(sample_archive, monkeypatch, tmp_path):
    monkeypatch.setattr(harness, '_REAL_ARCHIVE', sample_archive)
    sentence, batches = harness.load_batches(tmp_path, 60)
    assert sum(batch.records for batch in batches) == 60
    assert f'real CIFAR-10 images ({sample_archive.name})' in sentence
    with pytest.raises(DataError, match='has only 120 images; 121 were asked for'):
        harness.load_batches(tmp_path, 121)


def test_the_folder_is_removed_with_the_temporary_files_of_libraries():
    import tempfile

    before = tempfile.gettempdir()
    with harness.make_folder() as folder:
        (folder / 'file').write_bytes(b'1234')
        left = tempfile.mkdtemp()
        assert harness.measure_bytes(folder) == 4
    assert not folder.exists()
    assert not left.startswith(before) or str(folder) in left
    assert tempfile.gettempdir() == before


@pytest.mark.parametrize('name', BENCHMARKS)
def test_every_benchmark_can_be_imported_and_has_a_command_line(name):
    """Most benchmarks take minutes, so the tests run only one. The others must at least find what they import."""
    assert callable(importlib.import_module(f'benchmarks.{name}').main)


def test_the_transform_benchmark_compares_a_component_without_statistics_to_one_with(tmp_path):
    from pipeline.config import PipelineConfig

    sides = transform.make_sides(PipelineConfig(name='benchmark', root=str(tmp_path), data=str(tmp_path)))
    statistics_off = {name: side.exec_properties['disable_statistics'] for name, side in sides.items()}
    assert statistics_off == {'ours': 1, 'rival': 0}
    assert 'transformed_examples' not in sides['ours'].outputs
    assert 'transformed_examples' in sides['rival'].outputs


def test_the_load_test_sends_each_image_once_and_clients_ask_at_the_same_time():
    from benchmarks.serving import measure_load

    barrier, asked, seen = threading.Barrier(3, timeout=10), [], set()

    def ask(batch):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            barrier.wait()  # would break if one client waited for another
        asked.append(int(batch[0]))
        assert len(batch) == 1

    times, seconds = measure_load([ask] * 3, np.arange(10))
    assert sorted(asked) == list(range(10))
    assert len(times) == 10
    assert sum(times) / 1000 / 3 <= seconds


@pytest.mark.slow
def test_a_benchmark_ends_with_one_json_object():
    run = subprocess.run(
        [sys.executable, '-m', 'benchmarks.input', '--rounds', '1', '--images', '40'],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result['rounds'] == 1
    assert result['images'] == 40
    assert result['images_per_s_ours'] == pytest.approx(40 / result['ours'])
    assert result['images_per_s_rival'] == pytest.approx(40 / result['rival'])
    assert result['ratio'] == pytest.approx(result['rival'] / result['ours'])
