"""CIFAR-100's archive in its binary version, written as batch files of CIFAR-10's format.

Called by `pipeline.data`. An archive is a gzipped tar with a folder that holds `train.bin`, `test.bin` and two lists of
class names, `fine_label_names.txt` and `coarse_label_names.txt`. A record is that of CIFAR-10 with two labels before
the pixels: the coarse one, then the fine one (https://www.cs.toronto.edu/~kriz/cifar.html). The one that was not asked
for is left out, and so everything after this module reads batch files as those of CIFAR-10. The class names are the
archive's own.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from components.contract import DataContract
from components.data import cifar10
from components.data.archive import Format, check_labels, count_records, read_members
from components.data.cifar10 import BatchFile
from components.errors import DataError
from components.progress import track

Labels = Literal['fine', 'coarse']
LABELS: tuple[Labels, ...] = get_args(Labels)

_LABEL_COLUMNS: dict[Labels, int] = {'coarse': 0, 'fine': 1}  # where a record has which label
_RECORD_BYTES = len(_LABEL_COLUMNS) + cifar10.RECORD_BYTES - 1
_BATCHES = {'train.bin': cifar10.TRAIN_BATCHES[0], 'test.bin': cifar10.TEST_BATCH}  # as what each is written

FORMAT = Format(
    'CIFAR-100', 'cifar-100-binary.tar.gz', (*_BATCHES, *(f'{labels}_label_names.txt' for labels in LABELS))
)


def _parse_names(name: str, raw: bytes) -> tuple[str, ...]:
    """Reads a list of class names, a line each.

    Args:
      name: what error messages call the list.
      raw: its bytes.
    """
    try:
        names = tuple(line.strip() for line in raw.decode().splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f'{name} is not text ({error}); fetch the archive again.') from error
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(
            f'{name} has {len(names):,} class names, of which {len(set(names)):,} differ; expected at least 2, each '
            'once. Fetch the archive again.'
        )
    return names


def extract_batches(archive: Path, folder: Path, labels: Labels) -> tuple[list[BatchFile], DataContract]:
    """Checks an archive in the official layout, with any number of records, and writes two batch files.

    Args:
      archive: a local .tar.gz.
      folder: where the batch files go; it exists and is empty.
      labels: which of the two labels to write.

    Returns:
      A training batch and the test batch, and their class names and image size.

    Raises:
      DataError: the archive is not a gzipped tar, is cut short, is a different kind of CIFAR, has an unsafe member, or
        has a member that is missing, there twice, or damaged.
    """
    content: dict[str, bytes] = {}
    with track('extraction', len(FORMAT.members), 'files') as advance:
        for name, raw in read_members(archive, FORMAT):
            content[name] = raw
            advance(1)
    names = {
        each: _parse_names(f'{archive}: {each}_label_names.txt', content[f'{each}_label_names.txt']) for each in LABELS
    }
    batches = []
    for member, batch in _BATCHES.items():
        count = count_records(f'{archive}: {member}', content[member], _RECORD_BYTES)
        records = np.frombuffer(content[member], np.uint8).reshape(count, _RECORD_BYTES)
        for each, column in _LABEL_COLUMNS.items():
            check_labels(f'{archive}: {member}, {each} labels,', records[:, column], len(names[each]), FORMAT.title)
        kept = np.concatenate([records[:, [_LABEL_COLUMNS[labels]]], records[:, len(_LABEL_COLUMNS) :]], axis=1)
        (folder / batch).write_bytes(kept.tobytes())
        batches.append(BatchFile(folder / batch, count))
    return batches, cifar10.CONTRACT._replace(class_names=names[labels])
