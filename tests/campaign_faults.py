"""Faults of storage. Each function causes a fault, expects one clear sentence, mends the fault, and expects a good run.

The functions return what went wrong, a sentence each. `reference` is a run that has ended well; some functions damage
its root and mend it again.
"""

import contextlib
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from tests.campaign_runs import REUSED, Run, run


class SkippedError(Exception):
    """The fault cannot be caused on this machine; the message says why."""


def check_end(ended: Run, exit_code: int, sentence: str) -> list[str]:
    """Returns what is wrong with the end of a run that should fail with one line on standard error.

    Args:
      ended: the run.
      exit_code: the expected one.
      sentence: a regular expression for how the line begins, after 'error: '.
    """
    if ended.exit_code == exit_code and re.fullmatch(rf'error: {sentence}[^\n]*\n', ended.error):
        return []
    return [f'exit code {ended.exit_code} (expected {exit_code}) and: {ended.error.strip() or "nothing"}']


def check_works(ended: Run, reference: Run) -> list[str]:
    """Returns what is wrong with the end of a run that should end like the reference."""
    if (ended.exit_code, ended.verdict) == (0, reference.verdict):
        return []
    return [f'after the mend: exit code {ended.exit_code}, {ended.error.strip() or ended.verdict}']


def flip_byte(content: bytes) -> bytes:
    """Inverts every bit of the byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    """Returns the first two thirds."""
    return content[: len(content) * 2 // 3]


def _damage_records(out: Path, reference: Run, damage: Callable[[bytes], bytes], is_zipped: bool) -> list[str]:
    data, root = out / 'data', out / 'root'
    shutil.copytree(reference.layout.sample, data)
    (file,) = (data / 'train').iterdir()
    if not is_zipped:
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(file), 'GZIP')]
        file.unlink()
        file = data / 'train' / 'data.tfrecord'
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records:
                writer.write(record)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    broken = run(root, '--data', data)
    sentence = rf'The data was refused, and nothing was trained: train: {file} is corrupted or cut short, '
    faults = check_end(broken, 4, sentence)
    file.write_bytes(whole)
    return faults + check_works(run(root, '--data', data), reference)


def flip_byte_of_zipped_records(out: Path, reference: Run) -> list[str]:
    """Flips a byte in a GZIP TFRecord file."""
    return _damage_records(out, reference, flip_byte, is_zipped=True)


def cut_zipped_records(out: Path, reference: Run) -> list[str]:
    """Cuts a GZIP TFRecord file short."""
    return _damage_records(out, reference, cut, is_zipped=True)


def flip_byte_of_plain_records(out: Path, reference: Run) -> list[str]:
    """Flips a byte in a TFRecord file that is not compressed."""
    return _damage_records(out, reference, flip_byte, is_zipped=False)


@contextlib.contextmanager
def mount_disk(folder: Path, size: str) -> Iterator[None]:
    """Mounts a small file system in memory at `folder`.

    Raises:
      SkippedError: this process may not mount.
    """
    folder.mkdir(parents=True)
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise SkippedError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(['umount', '--lazy', str(folder)], check=True)


def fill_disk(out: Path, reference: Run) -> list[str]:
    """Fills the disk while the data is written and while the model is trained, and makes the disk larger each time."""
    disk, faults = out / 'disk', []
    with mount_disk(disk, '1m'):
        for larger in ('60m', '300m', '2g'):
            sentence = rf'The disk of {disk}\S* is full \([\d,]+ of [\d,]+ MB are free now\); free some space'
            faults += check_end(run(disk / 'root'), 1, sentence)
            subprocess.run(['mount', '-o', f'remount,size={larger}', str(disk)], check=True)
        return faults + check_works(run(disk / 'root'), reference)


def lock_store(out: Path, reference: Run) -> list[str]:
    """Locks the metadata store from a different process."""
    store = reference.layout.metadata
    holder = sqlite3.connect(store, isolation_level=None)
    holder.execute('BEGIN EXCLUSIVE')
    faults = check_end(run(reference.layout.root), 1, f'{store} is locked by a different process')
    holder.close()
    return faults + check_works(run(reference.layout.root), reference)


def damage_store(out: Path, reference: Run) -> list[str]:
    """Overwrites bytes of the metadata store, replaces it by a file of a different kind, and empties it."""
    store, faults = reference.layout.metadata, []
    whole = store.read_bytes()
    wrong = rf'{store} is damaged or is not an ML Metadata store \('
    unknown = rf'{reference.layout.artifacts} holds results that {store} does not know; '
    middle = len(whole) // 4096 // 2 * 4096
    for content, sentence in (
        (whole[:middle] + b'\xa5' * 4096 + whole[middle + 4096 :], wrong),
        (b'no store at all\n' * 1000, wrong),
        (b'', unknown),
    ):
        store.write_bytes(content)
        faults += check_end(run(reference.layout.root), 1, sentence)
    store.write_bytes(whole)
    return faults + check_works(run(reference.layout.root), reference)


def delete_artifacts(out: Path, reference: Run) -> list[str]:
    """Deletes the folders of artifacts: the next run makes each again, and its line says so."""
    faults = []
    names = [step.name for step in reference.steps]
    for key in ('transform_graph', 'model'):
        (folder,) = (path for path in reference.layout.artifacts.glob(f'*/{key}') if path.parent.name in names)
        maker = folder.parent.name
        newest = max(folder.iterdir(), key=lambda path: int(path.name))
        shutil.rmtree(newest)
        mended = run(reference.layout.root)
        faults += check_works(mended, reference)
        (note,) = (step.note for step in mended.steps if step.name == maker) if not faults else ('',)
        if note.startswith(REUSED) or f'made again, because {newest} was gone' not in note:
            faults.append(f'{maker} says: {note}')
    return faults


FAULTS: tuple[Callable[[Path, Run], list[str]], ...] = (
    flip_byte_of_zipped_records,
    cut_zipped_records,
    flip_byte_of_plain_records,
    fill_disk,
    lock_store,
    damage_store,
    delete_artifacts,
)
