"""The wheel: it holds every module, and every module can be imported where only the wheel is installed."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import PROJECT

PACKAGES = ('components', 'kubeflow', 'pipeline', 'trainer')
DATA_FILES = (
    'components/schema.pbtxt',
    'components/serving/MODEL_CARD.md.jinja',
    'components/worker_options.json',
    'pipeline/report/page.html.jinja',
    'pipeline/server/page.html',
)
UV = (sys.executable, '-m', 'uv')

IMPORT_ALL = """
import importlib, json, sys
import tfx.v1  # before TFDV 1.16, which lacks a module that TFX replaces
print(json.dumps([importlib.import_module(name).__file__ for name in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """An empty folder into which the wheel, and nothing else, was installed."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'LICENSE'):
        shutil.copy(PROJECT / name, source)
    for name in PACKAGES:
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    build = [*UV, 'build', '--quiet', '--wheel', '--no-build-isolation', '--out-dir', folder, source]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob('*.whl')
    target = folder / 'installed'
    subprocess.run([*UV, 'pip', 'install', '--quiet', '--no-deps', '--target', target, wheel], check=True)
    return target


def list_files(suffix: str) -> set[str]:
    return {str(file.relative_to(PROJECT)) for name in PACKAGES for file in (PROJECT / name).rglob(f'*{suffix}')}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(installed):
    files = {str(file.relative_to(installed)) for file in installed.rglob('*') if file.is_file()}
    ours = {file for file in files if file.split('/')[0] in PACKAGES and '__pycache__' not in file}
    assert ours == {*list_files('.py'), *DATA_FILES}
    assert not {file.split('/')[0] for file in files} & {'tests', 'benchmarks'}


@pytest.mark.slow
def test_every_module_can_be_imported_from_the_wheel(installed, tmp_path):
    names = [file.removesuffix('.py').replace('/', '.') for file in sorted(list_files('.py')) if '__init__' not in file]
    command = [sys.executable, '-c', IMPORT_ALL, json.dumps(names)]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={'PYTHONPATH': str(installed), 'HOME': str(tmp_path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    imported = json.loads(result.stdout.splitlines()[-1])
    assert imported == [str(installed / f'{name.replace(".", "/")}.py') for name in names]
