"""CIFAR-10's binary format: its batch files, and the official archive that holds them.

Called by `pipeline.data` and `components.data.tfrecords`. An archive is a gzipped tar with a folder that holds
`data_batch_1.bin` ... `data_batch_5.bin` and `test_batch.bin`. A record in such a batch file is 3,073 bytes: the
label (0-9), then the red, the green and the blue plane, row by row (https://www.cs.toronto.edu/~kriz/cifar.html).
Of an archive, only members with these six names are written, each under its own name into a folder that the caller
chooses.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.contract import DataContract
from components.data.archive import Format, check_labels, count_records, read_members
from components.progress import track

CONTRACT = DataContract(
    # In the order of the official archive (batches.meta.txt).
    class_names=('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'),
    image_size=32,
    is_square=True,
)

_HEIGHT, _WIDTH, _CHANNELS = CONTRACT.image_shape
RECORD_BYTES = 1 + _HEIGHT * _WIDTH * _CHANNELS
TRAIN_BATCHES = tuple(f'data_batch_{n}.bin' for n in range(1, 6))
TEST_BATCH = 'test_batch.bin'
BATCHES = (*TRAIN_BATCHES, TEST_BATCH)

FORMAT = Format('CIFAR-10', 'cifar-10-binary.tar.gz', BATCHES)


class BatchFile(NamedTuple):
    """A batch file on this machine whose records have been checked.

    path: the file, with a name from `BATCHES`.
    records: how many of its records are used, counted from the first.
    """

    path: Path
    records: int


class Batch(NamedTuple):
    """Parsed records.

    images: uint8 [N, 32, 32, 3], RGB, 0-255.
    labels: int64 [N], 0-9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def check_batch(name: str, raw: bytes) -> int:
    """Checks the bytes of a batch file and returns how many records they hold.

    Args:
      name: what error messages call the file.
      raw: its bytes.

    Raises:
      DataError: the bytes are not a whole number of records, there are none, or a label is over 9; the message names
        the file and the record.
    """
    records = count_records(name, raw, RECORD_BYTES)
    check_labels(name, np.frombuffer(raw, np.uint8)[::RECORD_BYTES], CONTRACT.num_classes, FORMAT.title)
    return records


def read_records(path: Path, start: int, length: int) -> Batch:
    """Reads and parses `length` records of a batch file, beginning with record `start` (the first record is 0)."""
    with path.open('rb') as file:
        file.seek(start * RECORD_BYTES)
        raw = file.read(length * RECORD_BYTES)
    rows = np.frombuffer(raw, np.uint8).reshape(length, RECORD_BYTES)
    planes = rows[:, 1:].reshape(length, _CHANNELS, _HEIGHT, _WIDTH)
    return Batch(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, 0].astype(np.int64))


def write_batch(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> BatchFile:
    """Writes uint8 images [N, 32, 32, 3] and their labels [N] as a batch file; the inverse of `read_records`."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    path.write_bytes(np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1).tobytes())
    return BatchFile(path, len(labels))


def extract_batches(archive: Path, folder: Path) -> list[BatchFile]:
    """Checks an archive in the official layout, with any number of records, and writes its six batch files.

    Args:
      archive: a local .tar.gz.
      folder: where the batch files go; it exists and is empty.

    Returns:
      The five training batches and the test batch, in the order of `BATCHES`.

    Raises:
      DataError: the archive is not a gzipped tar, is cut short, is a different kind of CIFAR, has an unsafe member, or
        has a batch that is missing, there twice, or damaged.
    """
    found: dict[str, BatchFile] = {}
    with track('extraction', len(BATCHES), 'files') as advance:
        for name, raw in read_members(archive, FORMAT):
            found[name] = BatchFile(folder / name, check_batch(f'{archive}: {name}', raw))
            found[name].path.write_bytes(raw)
            advance(1)
    return [found[name] for name in BATCHES]
