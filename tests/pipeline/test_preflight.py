"""What `make` says before it makes the environment, and when the packages cannot be installed."""

import collections
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import preflight
from tests.conftest import PROJECT

Usage = collections.namedtuple('Usage', 'free')


@pytest.fixture
def cpuinfo(tmp_path):
    """A /proc/cpuinfo of a CPU with AVX."""
    path = tmp_path / 'cpuinfo'
    path.write_text('processor : 0\nflags\t\t: fpu sse2 avx avx2\n')
    return path


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine on which the environment can be made."""
    monkeypatch.setattr(sys, 'version_info', (3, 11, 2))
    monkeypatch.setattr(platform, 'system', lambda: 'Linux')
    monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('glibc', '2.36'))
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: Usage(50e9))
    return monkeypatch


def list_faults(cpuinfo) -> list[str]:
    return list(preflight.list_faults(cpuinfo.parent, cpuinfo))


def test_a_fitting_machine_has_no_faults(cpuinfo):
    assert list_faults(cpuinfo) == []


@pytest.mark.parametrize(
    ('found', 'how'), [('/usr/bin/python3.11', 'run: make PYTHON=python3.11'), (None, 'install it')]
)
def test_a_different_python_is_named_and_the_right_one_looked_for(machine, cpuinfo, found, how):
    machine.setattr(sys, 'version_info', (3, 13, 1))
    machine.setattr(platform, 'python_version', lambda: '3.13.1')
    machine.setattr(shutil, 'which', lambda name: found)
    (fault,) = list_faults(cpuinfo)
    assert 'the lock is for Python 3.11, and this is Python 3.13.1' in fault
    assert how in fault


@pytest.mark.parametrize(('system', 'name'), [('Darwin', 'arm64'), ('Linux', 'aarch64')])
def test_a_different_system_is_sent_to_the_image(machine, cpuinfo, system, name):
    machine.setattr(platform, 'system', lambda: system)
    machine.setattr(platform, 'machine', lambda: name)
    (fault,) = list_faults(cpuinfo)
    assert f'this is {system} on {name}' in fault
    assert 'docker build --platform linux/amd64' in fault


@pytest.mark.parametrize(('library', 'found'), [(('', ''), 'another C library'), (('glibc', '2.27'), 'glibc 2.27')])
def test_an_old_or_other_c_library_is_named(machine, cpuinfo, library, found):
    machine.setattr(platform, 'libc_ver', lambda: library)
    (fault,) = list_faults(cpuinfo)
    assert found in fault


def test_a_cpu_without_avx_is_named(cpuinfo):
    cpuinfo.write_text('processor : 0\nflags\t\t: fpu sse2\n')
    (fault,) = list_faults(cpuinfo)
    assert 'AVX' in fault


def test_a_disk_without_room_is_named(machine, cpuinfo):
    machine.setattr(shutil, 'disk_usage', lambda folder: Usage(1.25e9))
    (fault,) = list_faults(cpuinfo)
    assert '1.2 GB free' in fault
    assert str(cpuinfo.parent) in fault


def run_make(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Has make make an environment in a folder of its own."""
    command = ['make', 'env', f'VENV={tmp_path / "venv"}', *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=variables, timeout=120, check=False)


def test_make_says_that_there_is_no_such_python(tmp_path):
    answer = run_make(tmp_path, 'PYTHON=python3.99')
    assert answer.returncode == 2
    assert 'error: there is no python3.99 here; install Python 3.11, then run: make PYTHON=python3.11' in answer.stderr
    assert not (tmp_path / 'venv').exists()


@pytest.mark.slow
def test_make_says_what_to_set_where_the_package_index_cannot_be_reached(tmp_path):
    closed = 'http://127.0.0.1:9'
    proxies = {name: closed for name in ('HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy')}
    answer = run_make(
        *(tmp_path, f'PYTHON={sys.executable}'),
        **proxies,
        NO_PROXY='',
        no_proxy='',
        PIP_RETRIES='0',
        PIP_NO_CACHE_DIR='1',
    )
    assert answer.returncode == 2
    assert 'Behind a proxy set HTTPS_PROXY' in answer.stderr
    assert not list((tmp_path / 'venv').glob('.made-from-*'))
