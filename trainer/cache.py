"""The feature cache: the trunk's outputs are computed once, and every epoch trains on them.

The trunk is the part of the network in which all layers are frozen, so its output for an image never changes.

A cache on disk is a file without a name: it is removed from its folder as soon as it is created. Nothing is left of it
when the process ends, however it ends, and no later run can mistake a half-written cache for a complete one.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.errors import TrainingError
from trainer.dataset import RowReader, switch_tuning_off

CacheKind = Literal['memory', 'disk', 'off']
# While one batch is copied and stored, or waits for a core that decodes images, the other one is computed: 1,024 images
# at 224 pixels went through ResNet50 at 0.96 and 0.98 of its graph's speed on 2 cores, with 1 at 0.93 and 0.95.
_BATCHES_AT_ONCE = 2
_PROBE_BYTES, _PROBE_ROWS = 32 * 1024**2, 8  # what is written to measure a disk: so many bytes, but at least 8 rows
_GB = 1e9


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
        """Stores rows, of the cache's shape and converted to its dtype, from row number `start` on."""
        if self._file is None:
            self._array[start : start + len(rows)] = rows
            return
        data = np.ascontiguousarray(rows, self.dtype).view(np.uint8).reshape(-1)
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

    def forget_pages(self) -> None:
        """Makes the rows that are written so far be read from the disk, and not from the system's page cache."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

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
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Runs the trunk over every row and view; the output for the i-th row in view v is stored at v * len(rows) + i.

    Two batches are computed at once, each in a thread of ours, which also copies the outputs to the host (from a GPU)
    and stores them. Meanwhile the next ones are decoded and resized in tf.data's threads. An error in any of them is
    raised here, and no thread is left then.

    Args:
      cache: Has room for len(rows) * views rows.
      read_images: Reads preprocessed images. View v of an image is what it returns for epoch v.
      rows: The numbers of the split's rows on which this worker trains.
      views: Number of views of each image.
      trunk: The frozen layers, images [N, S, S, 3] -> features [N, ...]; called by two threads at once.
      batch_size: Number of images that the trunk takes at once.
      advance: Called with a number of images whenever so many more have been stored.
    """
    starts = [(view, start) for view in range(views) for start in range(0, len(rows), batch_size)]
    numbers = tf.constant(rows, tf.int64)

    def read(view: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return read_images(numbers[start : start + batch_size], view)

    def compute(place: int, batch: tf.Tensor) -> int:
        cache.write(place, trunk(batch).numpy())
        return len(batch)

    spec = tf.constant(starts, tf.int64, shape=[len(starts), 2])
    places = tf.data.Dataset.from_tensor_slices((spec[:, 0], spec[:, 1]))
    batches = switch_tuning_off(places.map(read).prefetch(2))
    begun: deque[Future[int]] = deque()
    pool = ThreadPoolExecutor(_BATCHES_AT_ONCE, thread_name_prefix='frozen-layers')
    try:
        for (view, start), batch in zip(starts, batches, strict=True):
            begun.append(pool.submit(compute, view * len(rows) + start, batch))
            if len(begun) > _BATCHES_AT_ONCE:
                advance(begun.popleft().result())
        for future in begun:
            advance(future.result())
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C and errors wait only for the batches that are being computed


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


def measure_disk_reading(folder: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> float:
    """Measures how many seconds it takes to read a row from a cache on disk, in random order as training does.

    Some megabytes are written to the folder for it, and read from the disk itself: a cache that does not fit in memory
    does not fit in the system's page cache either.

    Args:
      folder: Local folder in which the cache would be created.
      shape, dtype: Those of a row.
    """
    random = np.random.default_rng(0)
    row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    count = max(_PROBE_ROWS, _PROBE_BYTES // row_bytes)
    probe = FeatureCache('disk', count, (row_bytes,), np.uint8, folder)
    try:
        for start in range(count):  # random bytes, because a file system may compress others
            probe.write(start, random.integers(0, 256, (1, row_bytes), np.uint8))
        probe.forget_pages()
        places = random.permutation(count)[:, np.newaxis]
        begin = time.monotonic()
        for place in places:
            probe.read(place)
        return (time.monotonic() - begin) / count
    finally:
        probe.close()
