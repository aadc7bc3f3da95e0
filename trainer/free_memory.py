"""Measures how much memory this process may still take, which in a container is less than the machine has free."""

from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUP_ROOT = Path('/sys/fs/cgroup')
_CGROUP_OF_PROCESS = Path('/proc/self/cgroup')
# The files of a cgroup: its limit, what is in use, and the line of memory.stat that says how much of that is page cache
# which the kernel gives back when memory is needed. (Kubernetes, too, counts usage without inactive_file.)
_FILES_V2 = ('memory.max', 'memory.current', 'inactive_file')
_FILES_V1 = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')


def _list_cgroups(of_process: Path, root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Lists the folders of the memory cgroups that hold this process, each with the names of its files.

    The limits of all parents count too. In a container the path in /proc may be that of the host, and the container's
    own cgroup is then mounted as the root.
    """
    lines = of_process.read_text().splitlines() if of_process.is_file() else []
    for line in lines:
        _, controllers, path = line.split(':', 2)
        if controllers and 'memory' not in controllers.split(','):
            continue
        top, files = (root / 'memory', _FILES_V1) if controllers else (root, _FILES_V2)
        folder = top / path.strip('/')
        for parent in [folder, *folder.parents]:
            yield parent, files
            if parent == top:
                break


def _measure_cgroup(folder: Path, files: tuple[str, str, str]) -> int | None:
    """Returns how many bytes are left under a cgroup's own limit; None if it has no limit."""
    limit_file, usage_file, reclaimable = files
    try:
        limit, usage = (folder / limit_file).read_text().strip(), int((folder / usage_file).read_text())
        stat = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
    except OSError:
        return None
    if limit == 'max':
        return None
    return max(0, int(limit) - usage + int(stat.get(reclaimable, 0)))


def measure_free_memory(of_process: Path = _CGROUP_OF_PROCESS, root: Path = _CGROUP_ROOT) -> int:
    """Returns how many bytes of memory this process may still take.

    That is what the machine has free, or less if a cgroup (the limit of a container) leaves less. psutil knows only the
    machine.

    Args:
      of_process: The file that lists the cgroups of this process.
      root: Where cgroups are mounted: version 2 itself, or version 1 with a folder for each controller.
    """
    left = [_measure_cgroup(folder, files) for folder, files in _list_cgroups(of_process, root)]
    return min([psutil.virtual_memory().available, *(size for size in left if size is not None)])
