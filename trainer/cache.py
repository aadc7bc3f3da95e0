"""The feature cache: the trunk's outputs are computed once, and every epoch trains on them.

The trunk is the part of the network in which all layers are frozen, so its output for an image never changes.

A cache on disk is a file without a name: it is removed from its folder as soon as it is created. Nothing is left of it
when the process ends, however it ends, and no later run can mistake a half-written cache for a complete one.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import tensorflow as tf

from components.errors import TrainingError
from trainer.dataset import RowReader

CacheKind = Literal['memory', 'disk', 'off']
_MEMORY_BYTES = 2 * 1024**3  # a larger cache goes to disk, so that memory does not grow with the number of images
_MEMORY_SHARE = 0.25  # of the memory that is free
_GB = 1e9


class CachePlan(NamedTuple):
    """Where the trunk's outputs are cached, and why there."""

    kind: CacheKind
    reason: str


def plan_cache(wanted: str, *, bytes_needed: int, folder: str, is_augmented: bool, cached_views: int) -> CachePlan:
    """Decides where the trunk's outputs are cached.

    Args:
      wanted: The setting `trainer.cache`: 'auto', 'memory', 'disk' or 'off'.
      bytes_needed: Size of the outputs for all images and all views.
      folder: Local folder in which a cache on disk would be created.
      is_augmented: Whether the images are augmented, so that their pixels change with every epoch.
      cached_views: Number of augmented views of each image to cache; 0 caches no augmented images.

    Raises:
      TrainingError: `wanted` is 'memory' or 'disk', and there is not enough room.
    """
    free_memory, free_disk = psutil.virtual_memory().available, shutil.disk_usage(folder).free
    size = f'{bytes_needed / _GB:.2f} GB'
    if wanted == 'off':
        return CachePlan('off', 'trainer.cache=off')
    if is_augmented and not cached_views:
        return CachePlan('off', 'augmentation changes the pixels every epoch (trainer.cached_views=0)')
    if wanted == 'memory' and bytes_needed > free_memory:
        raise TrainingError(
            f'trainer.cache=memory needs {size} of memory, and only {free_memory / _GB:.2f} GB are free; '
            'set trainer.cache=disk or off.'
        )
    if wanted == 'memory' or (wanted == 'auto' and bytes_needed <= min(_MEMORY_BYTES, _MEMORY_SHARE * free_memory)):
        return CachePlan('memory', f'{size} fit in memory')
    if bytes_needed <= free_disk:
        return CachePlan('disk', f'{size}, on disk to keep the use of memory bounded')
    if wanted == 'disk':
        raise TrainingError(
            f'trainer.cache=disk needs {size}, and only {free_disk / _GB:.2f} GB are free in {folder}; free some '
            'space, or set trainer.cache=off.'
        )
    return CachePlan('off', f'{size} fit neither in memory nor in the {free_disk / _GB:.2f} GB that are free on disk')


class FeatureCache:
    """An array of rows of one shape and dtype, in memory or in a file without a name.

    Args:
      kind: 'memory' or 'disk'.
      count: Number of rows.
      shape: Shape of one row.
      dtype: NumPy dtype of the rows; bfloat16 is the one of `ml_dtypes`.
      folder: Local folder in which the file is created.

    Raises:
      TrainingError: The disk has not enough room. The space is reserved here, so this is known before anything is
        computed.
    """

    def __init__(self, kind: CacheKind, count: int, shape: tuple[int, ...], dtype: npt.DTypeLike, folder: str):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._array = np.empty((count if kind == 'memory' else 0, *self.shape), self.dtype)
        self._file: IO[bytes] | None = None
        if kind == 'memory':
            return
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `close`)
        try:
            os.posix_fallocate(self._file.fileno(), 0, max(1, count * self._row_bytes))
        except OSError as error:
            self._file.close()
            raise TrainingError(
                f'The cache of {count * self._row_bytes / _GB:.2f} GB could not be created in {folder} '
                f'({error.strerror}); free some space, or set trainer.cache=off.'
            ) from error

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Stores rows, of the cache's shape and dtype, from row number `start` on."""
        if self._file is None:
            self._array[start : start + len(rows)] = rows
            return
        data = np.ascontiguousarray(rows).view(np.uint8).reshape(-1)
        os.pwrite(self._file.fileno(), data.data, start * self._row_bytes)

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Returns the rows with the given numbers, [len(indices), *shape]."""
        if self._file is None:
            selected: npt.NDArray[Any] = self._array[indices]
            return selected
        # The file is read and not mapped, because mapped pages would count as memory of this process.
        rows = np.empty((len(indices), self._row_bytes), np.uint8)
        for row, index in zip(rows, indices, strict=True):
            os.preadv(self._file.fileno(), [row.data], int(index) * self._row_bytes)
        return rows.view(self.dtype).reshape(len(indices), *self.shape)

    def close(self) -> None:
        """Releases the memory or the disk space."""
        self._array = np.empty((0, *self.shape), self.dtype)
        if self._file is not None:
            self._file.close()


def fill_cache(
    cache: FeatureCache,
    read_images: RowReader,
    rows: range,
    views: int,
    trunk: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int,
) -> float:
    """Runs the trunk over every row and view; the output for the i-th row in view v is stored at v * len(rows) + i.

    Args:
      cache: Has room for len(rows) * views rows.
      read_images: Reads preprocessed images. View v of an image is what it returns for epoch v.
      rows: The numbers of the split's rows on which this worker trains.
      views: Number of views of each image.
      trunk: The frozen layers, images [N, S, S, 3] -> features [N, ...].
      batch_size: Number of images that the trunk takes at once.

    Returns:
      The time taken, in seconds.
    """
    begin = time.monotonic()
    starts = [(view, start) for view in range(views) for start in range(0, len(rows), batch_size)]
    numbers = tf.constant(rows, tf.int64)

    def read(view: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return read_images(numbers[start : start + batch_size], view)

    spec = tf.constant(starts, tf.int64)
    batches = tf.data.Dataset.from_tensor_slices((spec[:, 0], spec[:, 1])).map(read).prefetch(2)
    for (view, start), batch in zip(starts, batches, strict=True):
        cache.write(view * len(rows) + start, trunk(batch).numpy().astype(cache.dtype))
    return time.monotonic() - begin


def make_cache_reader(cache: FeatureCache, rows: range, views: int) -> RowReader:
    """Makes a reader of what `fill_cache` stored for `rows`.

    The reader takes the rows' numbers in the split, as the reader of the images does; epoch e gets view e modulo
    `views`.
    """
    dtype = tf.as_dtype(cache.dtype)

    def read(indices: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        places = (indices - rows.start) // rows.step + (epoch % views) * len(rows)
        return tf.ensure_shape(tf.numpy_function(cache.read, [places], dtype), [None, *cache.shape])

    return read
