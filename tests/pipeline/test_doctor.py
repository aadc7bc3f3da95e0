import dataclasses
import importlib.metadata
import subprocess
import sys
import types

import pytest

from pipeline import doctor
from pipeline.config import PRESETS
from trainer.config import TrainerConfig

CONFIG = PRESETS['cifar10']('/')


def test_a_lock_is_read_without_its_hashes():
    text = 'absl-py==1.4.0 \\\n    --hash=sha256:00\n    # via keras\nkeras==3.15.1 ; python_version > "3"\n'
    assert doctor.read_lock(text) == {'absl-py': '1.4.0', 'keras': '3.15.1'}


def test_packages_that_do_not_have_the_locked_version_are_named_with_what_to_do(tmp_path):
    lock = tmp_path / 'requirements.txt'
    lock.write_text(f'numpy=={importlib.metadata.version("numpy")}\nkeras==0.0.1\nno-such-package==1\n')
    lines = [check.to_line() for check in doctor.check_packages(lock)]
    assert len(lines) == 2
    assert f'keras is {importlib.metadata.version("keras")}, the lock has 0.0.1; run: make env' in lines[0]
    assert 'no-such-package is missing, the lock has 1' in lines[1]


def test_a_matching_environment_is_one_line(tmp_path):
    lock = tmp_path / 'requirements.txt'
    lock.write_text(f'numpy=={importlib.metadata.version("numpy")}\n')
    (check,) = doctor.check_packages(lock)
    assert check.status == 'ok'


def test_this_environment_has_the_locked_versions():
    (check,) = doctor.check_packages()
    assert check.status == 'ok', check.to_line()


@pytest.mark.parametrize(('version', 'status'), [('2.36', 'ok'), ('2.27', 'FAIL'), ('2.100', 'ok')])
def test_glibc_is_compared_by_number(monkeypatch, version, status):
    monkeypatch.setattr(doctor.platform, 'libc_ver', lambda: ('glibc', version))
    assert doctor.check_glibc().status == status


def test_a_c_library_that_is_not_glibc_is_refused(monkeypatch):
    monkeypatch.setattr(doctor.platform, 'libc_ver', lambda: ('', ''))
    assert doctor.check_glibc().status == 'FAIL'


@pytest.mark.parametrize(('version', 'status'), [((3, 11), 'ok'), ((3, 10), 'FAIL'), ((3, 14), 'FAIL')])
def test_python_must_be_one_that_tfx_supports(monkeypatch, version, status):
    monkeypatch.setattr(sys, 'version_info', (*version, 0))
    assert doctor.check_python().status == status


def test_no_gpu_is_a_note_and_not_a_failure(monkeypatch):
    def miss(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, 'run', miss)
    assert doctor.check_gpu().status == 'note'


def test_a_gpu_without_a_working_driver_fails(monkeypatch):
    def fail(command, **options):
        raise subprocess.CalledProcessError(9, command)

    monkeypatch.setattr(subprocess, 'run', fail)
    assert doctor.check_gpu().status == 'FAIL'


def test_a_gpu_that_tensorflow_cannot_use_is_reported(monkeypatch):
    answer = subprocess.CompletedProcess([], 0, stdout='NVIDIA A100, 580.1\n')
    monkeypatch.setattr(subprocess, 'run', lambda *arguments, **options: answer)
    check = doctor.check_gpu()
    assert check.found == 'NVIDIA A100, 580.1'
    assert 'tensorflow[and-cuda]' in check.mend


def test_a_disk_without_room_fails_and_says_how_much_is_free(monkeypatch):
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda folder: types.SimpleNamespace(free=1_000_000))
    check = doctor.check_disk(CONFIG)
    assert check.status == 'FAIL'
    assert '0.0 GB free' in check.found


def test_the_forecast_follows_the_backbone_and_the_head():
    def forecast(**settings) -> float:
        return doctor.forecast_disk_bytes(dataclasses.replace(CONFIG, trainer=TrainerConfig(**settings)))

    resnet50 = forecast()
    assert forecast(pooling='average') < resnet50 < forecast(image_size=448)
    parameters = 42_658_176 - 23_587_712
    assert forecast(backbone='resnet101') - resnet50 == 9 * 4 * parameters


def test_the_exit_code_tells_whether_a_check_failed(monkeypatch, capsys):
    assert doctor.report(CONFIG) == 0
    monkeypatch.setattr(doctor.platform, 'libc_ver', lambda: ('', ''))
    assert doctor.report(CONFIG) == 1
    assert 'FAIL glibc' in capsys.readouterr().out
