"""kubeflow/Dockerfile, as far as it can be tested without Docker and a registry."""

import ast
import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.doctor import read_lock
from tests.conftest import PROJECT

DOCKERFILE = PROJECT / 'kubeflow' / 'Dockerfile'
LOCKS = {'cpu': 'requirements.txt', 'gpu': 'kubeflow/requirements-gpu.txt'}


class Stage(NamedTuple):
    """A stage of the Dockerfile: the image or stage that it starts from, and its instructions in order."""

    base: str
    instructions: list[tuple[str, str]]

    def list(self, name: str) -> list[str]:
        """Returns the arguments of each instruction of that name."""
        return [argument for instruction, argument in self.instructions if instruction == name]


def read_stages() -> dict[str, Stage]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith('#')]
    stages: dict[str, Stage] = {}
    for line in '\n'.join(lines).replace('\\\n', ' ').splitlines():
        if not line.strip():
            continue
        instruction, argument = line.split(maxsplit=1)
        if instruction == 'FROM':
            base, name = argument.split(' AS ')
            stages[name] = Stage(base, [])
        else:
            stages[name].instructions.append((instruction, argument))
    return stages


STAGES = read_stages()
ENVIRONMENTS = [f'{target}-environment' for target in LOCKS]


def is_sent(path: str) -> bool:
    """Says whether Docker sends a path to the build.

    The last line of .dockerignore that matches the path or one of its parents decides.
    """
    sent = True
    parents = [path, *map(str, Path(path).parents)][:-1]
    for line in (PROJECT / '.dockerignore').read_text().splitlines():
        pattern = line.removeprefix('!')
        if line and not line.startswith('#') and any(fnmatch.fnmatch(parent, pattern) for parent in parents):
            sent = line.startswith('!')
    return sent


def list_copies(stage: Stage) -> list[tuple[list[str], str]]:
    """Returns sources and target of each COPY from the project."""
    copies = [shlex.split(argument) for argument in stage.list('COPY')]
    return [(words[:-1], words[-1]) for words in copies if not words[0].startswith('--')]


def read_setup(function: str, name: str) -> object:
    """Returns the value of one argument of a function that setup.py calls."""
    calls = [node for node in ast.walk(ast.parse((PROJECT / 'setup.py').read_text())) if isinstance(node, ast.Call)]
    [call] = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function]
    return ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == name))


def test_hadolint_finds_nothing():
    hadolint = shutil.which('hadolint', path=os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH'])))
    result = subprocess.run([hadolint, '--no-color', DOCKERFILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, '')


def test_every_copied_path_exists_and_is_sent_and_other_paths_are_not():
    copied = {source for stage in STAGES.values() for sources, _ in list_copies(stage) for source in sources}
    for source in copied:
        assert (PROJECT / source).exists(), source
        assert is_sent(source), source
    for path in ('README.md', 'tests/conftest.py', '.git/config', 'runs/x', '.venv/bin/python', 'kubeflow/Dockerfile'):
        assert not is_sent(path), path
    assert not is_sent('components/__pycache__/errors.cpython-311.pyc')
    assert is_sent('components/schema.pbtxt')
    assert is_sent('kubeflow/notify.py')


@pytest.mark.parametrize('name', ENVIRONMENTS)
def test_all_our_packages_are_installed(name):
    copied = {source for sources, _ in list_copies(STAGES[name]) for source in sources}
    folders = {pattern.rstrip('*') for pattern in read_setup('find_packages', 'include')}
    assert folders == {source for source in copied if (PROJECT / source).is_dir()}


def test_the_gpu_lock_is_the_cpu_lock_with_cuda():
    cpu, gpu = (read_lock((PROJECT / lock).read_text()) for lock in LOCKS.values())
    assert cpu.items() <= gpu.items()
    more = gpu.keys() - cpu.keys()
    assert more
    assert all(name.startswith('nvidia-') for name in more)
    assert {'nvidia-cudnn-cu12', 'nvidia-cublas-cu12'} <= more


@pytest.mark.parametrize('target', LOCKS)
def test_the_image_runs_the_environment_of_its_stage_as_a_user_other_than_root(target):
    runtime, image = STAGES['runtime'], STAGES[target]
    [copy] = image.list('COPY')
    origin, source, place = copy.split()
    assert origin == f'--from={target}-environment'
    assert source == place  # a virtual environment cannot be moved
    assert all(f'--python {place}/bin/python' in run for run in STAGES[f'{target}-environment'].list('RUN'))
    variables = dict(pair.split('=', 1) for pair in shlex.split(runtime.list('ENV')[0]))
    assert variables['PATH'].split(':')[0] == f'{place}/bin'
    assert json.loads(runtime.list('ENTRYPOINT')[0]) == [f'{place}/bin/python']
    assert image.base == 'runtime'
    assert not image.list('USER')
    assert runtime.list('USER') == ['1000:1000']
    assert 'useradd --uid 1000 --create-home pipeline' in runtime.list('RUN')[0]
    assert variables['HOME'] == runtime.list('WORKDIR')[0] == '/home/pipeline'


@pytest.mark.parametrize('target', LOCKS)
def test_the_labels_have_the_version_and_the_digest_that_the_build_checks(target):
    labels = dict(pair.split('=', 1) for pair in shlex.split(STAGES[target].list('LABEL')[0]))
    assert labels['org.opencontainers.image.version'] == '${VERSION}'
    assert labels['cifar10-pipeline.lock-digest'] == 'sha256:${LOCK_DIGEST}'
    assert {*STAGES[target].list('ARG')} == {'VERSION', 'LOCK_DIGEST'}
    assert STAGES[f'{target}-environment'].list('ARG') == ['LOCK_DIGEST']
    made = subprocess.run(
        ['make', '-n', 'images', 'IMAGE=x/y'], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    [command] = [line for line in made.stdout.replace('\\\n', '').splitlines() if f'--target {target} ' in line]
    assert f'VERSION={read_setup("setup", "version")} ' in command
    assert f'LOCK_DIGEST={hashlib.sha256((PROJECT / LOCKS[target]).read_bytes()).hexdigest()}' in command


def test_every_stage_is_based_on_one_pinned_slim_image_and_boot_is_built_with_a_pinned_go():
    assert re.fullmatch(r'python:3\.11\.\d+-slim-bookworm', STAGES['base'].base)
    assert re.fullmatch(r'golang:1\.\d+\.\d+-bookworm', STAGES['boot'].base)
    assert {stage.base for name, stage in STAGES.items() if name not in ('base', 'boot')} <= {*STAGES}


def test_the_worker_image_starts_boot_of_the_locked_beam_in_the_environment_of_the_steps():
    command = STAGES['boot'].list('RUN')[0].partition(' && ')[0]
    printed = run_clean(['/bin/sh', '-ec', f'{command}; echo $version'], PROJECT)
    assert printed.strip() == read_lock((PROJECT / 'requirements.txt').read_text())['apache-beam']
    image = STAGES['worker']
    assert image.base == STAGES['cpu'].base
    assert STAGES['worker-environment'].base == 'cpu-environment'
    environment, boot = (argument.split() for argument in image.list('COPY'))
    assert environment == ['--from=worker-environment', '/opt/venv', '/opt/venv']
    assert boot[:2] == ['--from=boot', '/go/bin/container']
    assert json.loads(image.list('ENTRYPOINT')[0]) == [boot[2]] == ['/opt/apache/beam/boot']  # as boot calls itself
    assert image.list('ENV') == ['RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1']
    made = subprocess.run(
        ['make', '-n', 'images', 'IMAGE=x/y'], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert ' --target worker --tag x/y:' in made.stdout


def copy_sources(stage: Stage, build: Path) -> None:
    for sources, target in list_copies(stage):
        for source in sources:
            place = build / Path(source).name if target == './' else build / target
            if (PROJECT / source).is_dir():
                shutil.copytree(PROJECT / source, place, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(PROJECT / source, place)


def run_clean(command: list[str | Path], folder: Path, **variables: str) -> str:
    """Runs a command so that Python does not find this project by PYTHONPATH; returns its output."""
    environment = {**os.environ, **variables}
    environment.pop('PYTHONPATH', None)
    environment['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{environment["PATH"]}'
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def follow_run(command: str, root: Path, lock: Path) -> None:
    """Runs a RUN line with `root` in place of the container's root folder.

    The command that would install gigabytes of packages only resolves them.
    """
    command = command.replace('/opt/', f'{root}/opt/').replace('pip sync', 'pip sync --dry-run')
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    run_clean(['/bin/sh', '-ec', command], root / 'build', LOCK_DIGEST=digest)


@pytest.mark.slow
@pytest.mark.parametrize('target', LOCKS)
def test_the_commands_make_an_environment_with_our_packages_from_a_clean_folder(target, tmp_path):
    lock, python = PROJECT / LOCKS[target], tmp_path / 'opt' / 'venv' / 'bin' / 'python'
    (tmp_path / 'build').mkdir()
    copy_sources(STAGES['uv'], tmp_path / 'build')
    for command in STAGES['uv'].list('RUN'):
        follow_run(command, tmp_path, lock)
    copy_sources(STAGES[f'{target}-environment'], tmp_path / 'build')
    synced, installed = STAGES[f'{target}-environment'].list('RUN')
    follow_run(synced, tmp_path, lock)
    backend = f'setuptools=={read_lock(lock.read_text())["setuptools"]}'  # the line before has only resolved it
    run_clean([tmp_path / 'opt/uv/bin/uv', 'pip', 'install', '--python', python, backend], tmp_path)
    follow_run(installed, tmp_path, lock)
    assert '--webhook' in run_clean([python, '-m', 'kubeflow.notify', '--help'], tmp_path)
    schema = 'import components, pathlib; print((pathlib.Path(components.__file__).parent / "schema.pbtxt").exists())'
    assert run_clean([python, '-c', schema], tmp_path).strip() == 'True'
