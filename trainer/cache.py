"""The frozen part runs once: its outputs are kept, and every epoch trains on them.

The file that holds them has no name (it is removed as it is made), so nothing is left of it when the process ends,
however it ends, and no later run can take a half-written one for a whole.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import psutil
import tensorflow as tf

from components.errors import TrainingError
from trainer.dataset import Rows

CacheKind = Literal['memory', 'disk', 'off']
_MEMORY_BYTES = 2 * 1024**3  # more goes to disk, so that a run's memory does not grow with its images
_MEMORY_SHARE = 0.25  # of what is free
_GB = 1e9


class CachePlan(NamedTuple):
    """What is kept where, and why."""

    kind: CacheKind
    reason: str


def plan_cache(wanted: str, *, bytes_needed: int, folder: str, is_augmented: bool, cached_views: int) -> CachePlan:
    """Decides where the frozen part's outputs go.

    Args:
      wanted: `trainer.cache`: 'auto', 'memory', 'disk' or 'off'.
      bytes_needed: of all rows and views.
      folder: where a file would go.
      is_augmented: whether each epoch sees other pixels.
      cached_views: augmented views kept of each image; 0 keeps none.

    Raises:
      TrainingError: 'memory' or 'disk' was asked for and has no room.
    """
    free_memory, free_disk = psutil.virtual_memory().available, shutil.disk_usage(folder).free
    sizes = f'{bytes_needed / _GB:.2f} GB'
    if wanted == 'off':
        return CachePlan('off', 'trainer.cache=off')
    if is_augmented and not cached_views:
        return CachePlan('off', 'augmentation changes the pixels every epoch (trainer.cached_views=0)')
    if wanted == 'memory' and bytes_needed > free_memory:
        raise TrainingError(
            f'trainer.cache=memory needs {sizes} of memory and {free_memory / _GB:.2f} GB are free; '
            'set trainer.cache=disk or off.'
        )
    if wanted == 'memory' or (wanted == 'auto' and bytes_needed <= min(_MEMORY_BYTES, _MEMORY_SHARE * free_memory)):
        return CachePlan('memory', f'{sizes} fit in memory')
    if bytes_needed <= free_disk:
        return CachePlan('disk', f'{sizes}, on disk so that memory stays bounded')
    if wanted == 'disk':
        raise TrainingError(
            f'trainer.cache=disk needs {sizes} and {folder} has {free_disk / _GB:.2f} GB free; free some, or set '
            'trainer.cache=off.'
        )
    return CachePlan('off', f'{sizes} fit neither in memory nor in the {free_disk / _GB:.2f} GB free')


class FeatureCache:
    """Rows of one shape and type, in memory or in a file without a name.

    Args:
      kind: 'memory' or 'disk'.
      count: rows.
      shape: of a row.
      dtype: NumPy's; bfloat16 is ml_dtypes'.
      folder: where the file goes.

    Raises:
      TrainingError: the disk has no room; found out before anything is computed, because the space is reserved.
    """

    def __init__(self, kind: CacheKind, count: int, shape: tuple[int, ...], dtype: np.dtype, folder: str):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._file = None
        if kind == 'memory':
            self._array = np.empty((count, *self.shape), self.dtype)
            return
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `close`)
        try:
            os.posix_fallocate(self._file.fileno(), 0, max(1, count * self._row_bytes))
        except OSError as error:
            self._file.close()
            raise TrainingError(
                f'The cache of {count * self._row_bytes / _GB:.2f} GB could not be made in {folder} '
                f'({error.strerror}); free some space, or set trainer.cache=off.'
            ) from error

    def write(self, start: int, rows: np.ndarray) -> None:
        """Stores rows from number `start` on; they must have the cache's shape and dtype."""
        if self._file is None:
            self._array[start : start + len(rows)] = rows
            return
        data = np.ascontiguousarray(rows).view(np.uint8).reshape(-1)
        os.pwrite(self._file.fileno(), data, start * self._row_bytes)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows by number: [len(indices), *shape].

        A file is read, not mapped: mapped pages would count as this process's memory.
        """
        if self._file is None:
            return self._array[indices]
        rows = np.empty((len(indices), self._row_bytes), np.uint8)
        for row, index in zip(rows, indices, strict=True):
            os.preadv(self._file.fileno(), [row], int(index) * self._row_bytes)
        return rows.view(self.dtype).reshape(len(indices), *self.shape)

    def close(self) -> None:
        """Gives the memory or the disk space back."""
        self._array = None
        if self._file is not None:
            self._file.close()


def fill_cache(
    cache: FeatureCache, images: Rows, rows: range, views: int, trunk: Callable[[tf.Tensor], tf.Tensor], batch_size: int
) -> float:
    """Runs the frozen part over every row and view; the i-th row of view v goes to v * len(rows) + i.

    Args:
      cache: has room for len(rows) * views rows.
      images: reads preprocessed images; a view is what it gives for that epoch.
      rows: of the split, those that this worker trains on.
      views: how many views of each.
      trunk: the frozen part, images [N, S, S, 3] -> [N, ...].
      batch_size: images at once.

    Returns:
      Seconds it took.
    """
    begin = time.monotonic()
    starts = [(view, start) for view in range(views) for start in range(0, len(rows), batch_size)]
    numbers = tf.constant(rows, tf.int64)

    def read(view: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return images(numbers[start : start + batch_size], view)

    spec = tf.constant(starts, tf.int64)
    batches = tf.data.Dataset.from_tensor_slices((spec[:, 0], spec[:, 1])).map(read).prefetch(2)
    for (view, start), batch in zip(starts, batches, strict=True):
        cache.write(view * len(rows) + start, trunk(batch).numpy().astype(cache.dtype))
    return time.monotonic() - begin


def make_cached_rows(cache: FeatureCache, rows: range, views: int) -> Rows:
    """Reads what `fill_cache` kept of `rows`, by a row's number in the split; epoch e gets view e modulo `views`."""
    dtype = tf.as_dtype(cache.dtype)

    def read(indices: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        places = (indices - rows.start) // rows.step + (epoch % views) * len(rows)
        return tf.ensure_shape(tf.numpy_function(cache.read, [places], dtype), [None, *cache.shape])

    return read
