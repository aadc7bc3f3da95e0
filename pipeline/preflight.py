"""Says in a sentence why the locked environment cannot be made here, before anything is downloaded or compiled.

    python3 pipeline/preflight.py FOLDER

The Makefile runs this file with whatever Python is found, before there is an environment: it imports only the standard
library, and runs on Python 3.7 and newer.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

PYTHON = (3, 11)  # the version that the lock was resolved for
LEAST_GLIBC = (2, 28)  # TensorFlow 2.21's and the locked TFX wheels' (manylinux_2_28)
NEEDED_GB = 4.0  # the environment takes 3.4 GB; the cache of the packages shares its files where it is on the same disk
_EXIT_USAGE = 2
_CPUINFO = Path('/proc/cpuinfo')


def has_avx(cpuinfo: Path = _CPUINFO) -> bool:
    """Returns whether the CPU has AVX, without which TensorFlow's wheels end the process; True where nothing says so.

    Args:
      cpuinfo: Linux' /proc/cpuinfo.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return True
    flags = next((line.partition(':')[2].split() for line in lines if line.startswith('flags')), None)
    return flags is None or 'avx' in flags


def read_glibc() -> tuple[str, tuple[int, ...]]:
    """Returns the name of the C library, '' if it is not glibc, and its version."""
    library, version = platform.libc_ver()
    return library, tuple(int(part) for part in version.split('.')[:2] if part.isdigit())


def list_faults(folder: Path, cpuinfo: Path = _CPUINFO) -> Iterator[str]:
    """Yields a sentence for each reason why the environment cannot be made in a folder on this machine."""
    if sys.version_info[:2] != PYTHON:
        wanted = '.'.join(str(part) for part in PYTHON)
        other = 'python' + wanted
        how = 'run: make PYTHON=' + other
        if not shutil.which(other):
            how = f'install it (on Debian 12 and Ubuntu it is the package {other}), then run: make PYTHON={other}'
        yield f'the lock is for Python {wanted}, and this is Python {platform.python_version()}; {how}'
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ('Linux', 'x86_64'):
        yield (
            f'the locked packages are for Linux on x86_64, and this is {system} on {machine}; use such a machine, or '
            'build the image of kubeflow/Dockerfile with `docker build --platform linux/amd64`'
        )
        return
    library, version = read_glibc()
    if library != 'glibc' or version < LEAST_GLIBC:
        found = 'another C library' if library != 'glibc' else 'glibc ' + '.'.join(str(part) for part in version)
        yield (
            f'the locked packages need glibc 2.28 or newer, and this is {found}; use Debian 12, Ubuntu 22.04 or RHEL 9'
        )
    if not has_avx(cpuinfo):
        yield (
            "TensorFlow's packages need a CPU with AVX, and this one has none; in a virtual machine, let it see the "
            "host's CPU (QEMU: -cpu host)"
        )
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < NEEDED_GB and not (folder / '.venv').exists():  # an old environment is removed first
        yield (
            f'making the environment takes {NEEDED_GB:.0f} GB, and {folder.resolve()} has {free:.1f} GB free; free '
            'some space, or clone the project to another disk'
        )


def main(arguments: list[str]) -> int:
    """Writes the faults to standard error, and returns the exit code."""
    faults = list(list_faults(Path(arguments[0])))
    for fault in faults:
        sys.stderr.write(f'error: {fault}.\n')
    return _EXIT_USAGE if faults else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
