"""The `doctor` command: a line for each thing that a run needs of this machine, and what to do if it is missing."""

import importlib.metadata
import itertools
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from components.data import cifar10
from components.data.manifest import read_contract, read_manifest
from pipeline.config import PipelineConfig
from pipeline.console import print_line
from pipeline.preflight import LEAST_GLIBC, has_avx, read_glibc
from trainer.backbones import BACKBONES, STRIDE

_LOCK_FILE = Path(__file__).parents[1] / 'requirements.txt'
_PYTHONS = ((3, 11), (3, 13))  # the first and the last that TFX 1.21 supports
_GB = 1e9


class Check(NamedTuple):
    """One thing that was checked."""

    status: str
    """'ok', 'note' (a run works without it) or 'FAIL'."""
    name: str
    """What was checked."""
    found: str
    """What this machine has."""
    mend: str = ''
    """What to do about it; empty when the status is 'ok'."""

    def to_line(self) -> str:
        """Returns one line for the terminal."""
        return f'{self.status:<5}{self.name:<10} {self.found}' + (f'; {self.mend}' if self.mend else '')


def check_python() -> Check:
    """Checks whether TFX supports this Python; the lock file is for the oldest version that it supports."""
    found = platform.python_version()
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        return Check('FAIL', 'Python', found, 'make the environment with Python 3.11: make env PYTHON=python3.11')
    return Check('ok', 'Python', found)


def check_glibc() -> Check:
    """Checks whether the locked wheels can be loaded with this C library."""
    library, version = read_glibc()
    found = '.'.join(str(part) for part in version)
    if library != 'glibc':
        return Check('FAIL', 'glibc', library or 'not found', 'use a glibc system, such as Debian 12 or Ubuntu 22.04')
    if version < LEAST_GLIBC:
        least = '.'.join(str(part) for part in LEAST_GLIBC)
        return Check('FAIL', 'glibc', found, f'at least {least} is needed: use Debian 12, Ubuntu 22.04, RHEL 9')
    return Check('ok', 'glibc', found)


def check_cpu() -> Check:
    """Checks whether the CPU has the instructions that TensorFlow's wheels are compiled for."""
    if not has_avx():
        return Check('FAIL', 'CPU', 'no AVX', "TensorFlow needs it; in a virtual machine, let it see the host's CPU")
    return Check('ok', 'CPU', 'AVX')


def read_lock(text: str) -> dict[str, str]:
    """Returns the pinned versions in a requirements file, by package name."""
    return dict(re.findall(r'^([A-Za-z0-9._-]+)==([^\s\\;]+)', text, flags=re.MULTILINE))


def check_packages(lock_file: Path = _LOCK_FILE) -> list[Check]:
    """Compares the installed packages with the lock: one line if all agree, else one for each that does not."""
    if not lock_file.exists():
        return [Check('note', 'packages', 'not compared: no lock file beside the package', 'run it in a checkout')]
    pins = read_lock(lock_file.read_text())
    wrong = []
    for name, version in pins.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = 'missing'
        if found != version:
            wrong.append(Check('FAIL', 'package', f'{name} is {found}, the lock has {version}', 'run: make env'))
    return wrong or [Check('ok', 'packages', f'all {len(pins)} have the locked version')]


def check_gpu() -> Check:
    """Checks whether there is a GPU with a driver, and whether TensorFlow can use it."""
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except FileNotFoundError:
        return Check('note', 'GPU', 'none found (no nvidia-smi)', 'a run trains on the CPU')
    except (subprocess.SubprocessError, OSError) as error:
        return Check('FAIL', 'GPU', f'nvidia-smi failed ({error})', 'install the NVIDIA driver again, or remove it')
    gpus = '; '.join(answer.splitlines())
    try:
        importlib.metadata.version('nvidia-cudnn-cu12')
    except importlib.metadata.PackageNotFoundError:
        return Check('note', 'GPU', gpus, "TensorFlow cannot use it without: pip install 'tensorflow[and-cuda]'")
    return Check('ok', 'GPU', gpus)


def _measure_data(config: PipelineConfig) -> tuple[int, int, float]:
    """Returns the classes of the data, its records, and the bytes of a record: pixels, or a third of them as JPEG.

    Where the data does not say it on this machine, CIFAR-10's numbers are taken.
    """
    contract, records = cifar10.CONTRACT, config.sample.train + config.sample.test
    if config.data:
        records = 60_000
        manifest = None if '://' in config.data else read_manifest(Path(config.data))
        if manifest is not None:
            contract, records = read_contract(manifest), sum(manifest['counts'].values())
    pixels = contract.image_size**2
    return contract.num_classes, records, pixels * (3 if contract.is_square else 1)


def forecast_disk_bytes(config: PipelineConfig) -> float:
    """Returns the most that a run writes, in bytes.

    The parameters of the backbone and the head take 4 bytes each, and are written nine times: in the best weights and
    in the .keras file (three times each, with the optimizer state of Adam), in the SavedModel, in its copy in the
    Pusher's artifact, and in the pushed version. The records of the data are written twice.
    """
    trainer = config.trainer
    backbone = BACKBONES[trainer.backbone]
    classes, records, record_bytes = _measure_data(config)
    area = (trainer.get_image_size() // STRIDE) ** 2 if trainer.pooling == 'flatten' else 1
    widths = [backbone.channels * area, *trainer.head_units, classes]
    head = sum(before * after for before, after in itertools.pairwise(widths))
    return 9 * 4 * (backbone.parameters + head) + 2 * record_bytes * records


def check_disk(config: PipelineConfig) -> Check:
    """Checks whether the root's disk has room for the run."""
    folder = next(path for path in (Path(config.root), *Path(config.root).parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, forecast_disk_bytes(config)
    found = f'{free / _GB:.1f} GB free at {folder}, a run of {config.name} needs {needed / _GB:.1f} GB'
    if free < needed:
        return Check('FAIL', 'disk', found, 'free some space, or give a --root on a different disk')
    return Check('ok', 'disk', found)


def report(config: PipelineConfig) -> int:
    """Prints every check; returns 1 if one failed, else 0."""
    checks = [check_python(), check_glibc(), check_cpu(), *check_packages(), check_gpu(), check_disk(config)]
    for check in checks:
        print_line(check.to_line(), sys.stdout, hang=' ' * 16)
    return int(any(check.status == 'FAIL' for check in checks))
