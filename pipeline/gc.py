"""gc: frees the disk that the artifacts of old runs take.

The newest runs keep all that they used, also what they reused of older runs. A pushed version has all that it needs in
its own folder, so no version needs an artifact: where files are hard links, the version's link stays.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ml_metadata.proto import metadata_store_pb2

from components.errors import UsageError
from pipeline.config import Layout
from pipeline.local import lock_root
from pipeline.run_history import Run, check_root, read_runs
from pipeline.run_record import open_store

_DELETED = metadata_store_pb2.Artifact.DELETED


class Garbage(NamedTuple):
    """What the runs that are kept do not need."""

    artifacts: list[metadata_store_pb2.Artifact]
    """Artifacts that only older runs used, and that are not marked as deleted yet."""
    folders: list[Path]
    """Folders to remove."""


def _list_used(runs: Iterable[Run]) -> dict[int, metadata_store_pb2.Artifact]:
    """Returns every artifact that runs read or wrote, by id."""
    return {
        artifact.id: artifact
        for run in runs
        for step in run.steps
        for artifact in (*step.inputs, *step.outputs.values())
    }


def find_garbage(layout: Layout, runs: list[Run], keep: int) -> Garbage:
    """Finds what only runs other than the newest used, and what such runs left when they failed or were killed.

    Args:
      layout: the root.
      runs: all of its runs, the oldest first.
      keep: how many of the newest keep what they used.
    """
    kept, old = runs[-keep:], runs[:-keep]
    used = _list_used(kept)
    used_folders = {Path(artifact.uri) for artifact in used.values()}
    kept_executions = {step.execution.id for run in kept for step in run.steps}
    unused = [artifact for artifact in _list_used(old).values() if artifact.id not in used]
    folders = {Path(artifact.uri) for artifact in unused}
    for execution_id in {step.execution.id for run in old for step in run.steps} - kept_executions:
        folders.update(layout.artifacts.glob(f'*/*/{execution_id}'))
        folders.update(layout.artifacts.glob(f'*/.system/*/{execution_id}'))
    removable = sorted(
        folder
        for folder in folders - used_folders
        if folder.is_relative_to(layout.artifacts) and folder != layout.artifacts and folder.is_dir()
    )
    live = [each for each in unused if each.state != _DELETED and Path(each.uri).is_relative_to(layout.artifacts)]
    return Garbage(live, removable)


def measure_freed_bytes(folders: Iterable[Path]) -> int:
    """Measures how many bytes the disk gains if folders are removed.

    A file that has a hard link elsewhere, such as in a pushed version, keeps its bytes.
    """
    links: dict[tuple[int, int], int] = {}
    freed = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                status = os.lstat(os.path.join(parent, name))
                file = (status.st_dev, status.st_ino)
                links[file] = links.get(file, 0) + 1
                if links[file] == status.st_nlink:
                    freed += status.st_blocks * 512
    return freed


def _format_bytes(count: int) -> str:
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'


def collect(layout: Layout, keep: int, *, is_dry: bool) -> str:
    """Removes the artifacts that only old runs used, and marks them as deleted, so that no later run reuses them.

    Logs, pushed versions, the data, the checkpoints of a training that was killed, and what ML Metadata knows of each
    run stay.

    Args:
      layout: the root.
      keep: how many of the newest runs keep all that they used; at least 1.
      is_dry: only says what would be removed.

    Returns:
      What was removed and how much that freed, in a sentence.

    Raises:
      UsageError: `keep` is less than 1, the folder holds no runs, or a run is using it.
      StorageError: ML Metadata is locked or damaged.
    """
    if keep < 1:
        raise UsageError(f'--keep takes a number of at least 1. Received: {keep}')
    check_root(layout)
    with lock_root(layout.root):
        runs = read_runs(layout)
        garbage = find_garbage(layout, runs, keep)
        size = measure_freed_bytes(garbage.folders)
        if not is_dry:
            # Marked first: whoever is killed here leaves folders that nothing uses, and the next gc removes them.
            store = open_store(layout.metadata)
            for artifact in garbage.artifacts:
                artifact.state = _DELETED
            if garbage.artifacts:
                store.put_artifacts(garbage.artifacts)
            for folder in garbage.folders:
                shutil.rmtree(folder)
    if not garbage.folders:
        return f'nothing to remove: the newest {min(keep, len(runs))} of {len(runs)} runs use every artifact'
    verb = 'would remove' if is_dry else 'removed'
    freed = 'would free' if is_dry else 'freed'
    return (
        f'{verb} {len(garbage.folders)} folders of {len(runs) - min(keep, len(runs))} old runs, which {freed} '
        f'{_format_bytes(size)} ({size:,} bytes)'
    )
