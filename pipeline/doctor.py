"""The `doctor` command: a line for each thing a run needs of this machine, and what to do where it is not so."""

import importlib.metadata
import itertools
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from components import features
from pipeline.config import PipelineConfig
from trainer.backbones import BACKBONES

_LOCK_FILE = Path(__file__).parents[1] / 'requirements.txt'
_PYTHONS = ((3, 11), (3, 13))  # the first and the last that TFX 1.21 supports
_LEAST_GLIBC = (2, 28)  # TensorFlow 2.21's and the locked TFX wheels' (manylinux_2_28)
_GB = 1e9


class Check(NamedTuple):
    """status: 'ok', 'note' (a run works without it) or 'FAIL'; mend: what to do, empty when ok."""

    status: str
    name: str
    found: str
    mend: str = ''

    def to_line(self) -> str:
        """One line for the terminal."""
        return f'{self.status:<5}{self.name:<10} {self.found}' + (f'; {self.mend}' if self.mend else '')


def check_python() -> Check:
    """Whether TFX supports this Python; the lock is for the first of them."""
    found = platform.python_version()
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        return Check('FAIL', 'Python', found, 'make the environment with Python 3.11: make env PYTHON=python3.11')
    return Check('ok', 'Python', found)


def check_glibc() -> Check:
    """Whether the locked wheels can be loaded here."""
    library, version = platform.libc_ver()
    if library != 'glibc':
        return Check('FAIL', 'glibc', library or 'not found', 'use a glibc system, such as Debian 12 or Ubuntu 22.04')
    if tuple(int(part) for part in version.split('.')[:2]) < _LEAST_GLIBC:
        least = '.'.join(str(part) for part in _LEAST_GLIBC)
        return Check('FAIL', 'glibc', version, f'at least {least} is needed: use Debian 12, Ubuntu 22.04, RHEL 9')
    return Check('ok', 'glibc', version)


def read_lock(text: str) -> dict[str, str]:
    """The pinned versions by package name in a requirements file."""
    return dict(re.findall(r'^([A-Za-z0-9._-]+)==([^\s\\;]+)', text, flags=re.MULTILINE))


def check_packages(lock_file: Path = _LOCK_FILE) -> list[Check]:
    """One line when every package is the locked one, else one for each that is not."""
    if not lock_file.exists():
        return [Check('note', 'packages', 'no lock file beside the package, not compared', 'run it in a checkout')]
    pins = read_lock(lock_file.read_text())
    wrong = []
    for name, version in pins.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = 'missing'
        if found != version:
            wrong.append(Check('FAIL', 'package', f'{name} is {found}, the lock has {version}', 'run: make env'))
    return wrong or [Check('ok', 'packages', f'all {len(pins)} are the locked ones')]


def check_gpu() -> Check:
    """Whether there is a GPU with a driver, and a TensorFlow that can use it."""
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except FileNotFoundError:
        return Check('note', 'GPU', 'none found (no nvidia-smi)', 'a run trains on the CPU')
    except (subprocess.SubprocessError, OSError) as error:
        return Check('FAIL', 'GPU', f'nvidia-smi failed ({error})', 'install the NVIDIA driver anew, or remove it')
    gpus = '; '.join(answer.splitlines())
    try:
        importlib.metadata.version('nvidia-cudnn-cu12')
    except importlib.metadata.PackageNotFoundError:
        return Check('note', 'GPU', gpus, "TensorFlow cannot use it without: pip install 'tensorflow[and-cuda]'")
    return Check('ok', 'GPU', gpus)


def forecast_disk_bytes(config: PipelineConfig) -> float:
    """What a run writes at most, in bytes.

    The backbone's parameters and the head's, 4 bytes each, nine times: best weights and .keras file (three times each
    with the optimizer state of Adam), SavedModel, its copy in the Pusher's artifact, and the pushed version; and 3 KB a
    record in the data, twice.
    """
    trainer = config.trainer
    backbone = BACKBONES[trainer.backbone]
    area = (trainer.get_image_size() // 32) ** 2 if trainer.pooling == 'flatten' else 1
    widths = [backbone.channels * area, *trainer.head_units, features.NUM_CLASSES]
    head = sum(before * after for before, after in itertools.pairwise(widths))
    records = 60_000 if config.data else config.sample.train + config.sample.test
    return 9 * 4 * (backbone.parameters + head) + 2 * 3_000 * records


def check_disk(config: PipelineConfig) -> Check:
    """Whether the root's disk has room for the run."""
    folder = next(path for path in (Path(config.root), *Path(config.root).parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, forecast_disk_bytes(config)
    found = f'{free / _GB:.1f} GB free at {folder}, a run of {config.name} needs {needed / _GB:.1f} GB'
    if free < needed:
        return Check('FAIL', 'disk', found, 'free some, or give --root on another disk')
    return Check('ok', 'disk', found)


def report(config: PipelineConfig) -> int:
    """Prints every check; returns 1 when one failed, else 0."""
    checks = [check_python(), check_glibc(), *check_packages(), check_gpu(), check_disk(config)]
    for check in checks:
        print(check.to_line())
    return int(any(check.status == 'FAIL' for check in checks))
