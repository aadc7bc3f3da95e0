"""Decides what an epoch reads: the images, or the trunk's outputs for them, which are computed once and cached.

The trunk is the part of the network in which all layers are frozen. What comes after it is the top.
"""

import contextlib
import functools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.progress import track
from trainer.cache import CacheKind, FeatureCache, fill_cache, make_cache_reader, measure_disk_reading
from trainer.cache_plan import CacheNeed, CachePlan, RowSeconds, plan_cache
from trainer.cluster import Share
from trainer.config import TrainerConfig
from trainer.dataset import Split
from trainer.device import Device
from trainer.inference_graph import InferenceGraph
from trainer.model import split_at_border

TRUNK_BATCH = 32  # images that the trunk takes at once
_PROBE_BATCHES = 4  # batches on which the trunk is timed
_log = logging.getLogger('trainer')

TrunkFunction = Callable[[tf.Tensor], tf.Tensor]
"""Runs the trunk: images float32 [N, S, S, 3] -> outputs [N, ...]."""


class TrainingRows(NamedTuple):
    """The model to fit in one phase, and the splits to fit it on.

    model: The whole network if nothing is cached, else its top, which shares its weights.
    train, val: The splits; their rows are the inputs of `model`. They must not be read before `fill` was called.
    cache: Where the trunk's outputs are cached.
    fill: Runs the trunk over both splits and fills the cache; does nothing if there is none.
    """

    model: keras.Model
    train: Split
    val: Split
    cache: CacheKind
    fill: Callable[[], None]


def make_trunk_function(trunk: keras.Model, device: Device) -> TrunkFunction:
    """Makes the function that runs the trunk in the frozen pass: on a CPU its inference graph, on a GPU Keras' own."""
    if not device.is_gpu:
        return InferenceGraph(trunk, device.trunk_precision)
    run: TrunkFunction = tf.function(lambda images: trunk(images, training=False))
    return run


def _measure_computing(run: TrunkFunction, trunk: keras.Model, split: Split, rows: range) -> float:
    """Measures how many seconds an image takes in the frozen pass, with decoding, on a few batches after a warm-up."""
    rows = rows[: _PROBE_BATCHES * TRUNK_BATCH]
    probe = FeatureCache('memory', len(rows), trunk.output_shape[1:], np.float32, '')
    seconds = 0.0
    with track('measuring the frozen layers', len(rows) + len(rows[:TRUNK_BATCH])) as advance:
        for part in (rows[:TRUNK_BATCH], rows):
            begin = time.monotonic()
            fill_cache(probe, split.read_rows, part, 1, run, TRUNK_BATCH, advance)
            seconds = time.monotonic() - begin
    return seconds / len(rows)


def _choose_folder(config: TrainerConfig, run_dir: str) -> str:
    """Returns a local folder for a cache on disk: the run's folder, or a temporary one if that is remote."""
    folder = config.cache_dir or (tempfile.gettempdir() if '://' in run_dir else run_dir)
    os.makedirs(folder, exist_ok=True)
    return folder


class _Shares(NamedTuple):
    """What this worker caches: row numbers of both splits, and the number of views of each row of `train`."""

    train: range
    val: range
    views: int

    @property
    def total(self) -> int:
        return len(self.train) * self.views + len(self.val)


@contextlib.contextmanager
def _cache_rows(
    get_trunk: Callable[[], TrunkFunction],
    top: keras.Model,
    train: Split,
    val: Split,
    shares: _Shares,
    *,
    dtype: np.dtype[Any],
    plan: CachePlan,
    folder: str,
) -> Iterator[TrainingRows]:
    """Creates a cache of the trunk's outputs for each split; the top is fitted on the cached rows."""
    shape = top.input_shape[1:]
    with contextlib.ExitStack() as stack:
        train_cache = FeatureCache(plan.kind, len(shares.train) * shares.views, shape, dtype, folder)
        stack.callback(train_cache.close)
        val_cache = FeatureCache(plan.kind, len(shares.val), shape, dtype, folder)
        stack.callback(val_cache.close)

        def fill() -> None:
            _log.info('cache %s %s: %s', 'on' if plan.kind == 'disk' else 'in', plan.kind, plan.reason)
            with track('frozen layers', shares.total) as advance:
                run = get_trunk()  # takes seconds, and is not part of the speed that is logged
                begin = time.monotonic()
                fill_cache(train_cache, train.read_rows, shares.train, shares.views, run, TRUNK_BATCH, advance)
                fill_cache(val_cache, val.read_rows, shares.val, 1, run, TRUNK_BATCH, advance)
                seconds = time.monotonic() - begin
            _log.info('frozen layers took %.1f s, %.1f images/s', seconds, shares.total / seconds)

        cached_train = replace(train, read_rows=make_cache_reader(train_cache, shares.train, shares.views))
        cached_val = replace(val, read_rows=make_cache_reader(val_cache, shares.val, 1))
        yield TrainingRows(top, cached_train, cached_val, plan.kind, fill)


@contextlib.contextmanager
def prepare_rows(
    model: keras.Model,
    config: TrainerConfig,
    device: Device,
    train: Split,
    val: Split,
    run_dir: str,
    share: Share | None = None,
    *,
    epochs: int,
) -> Iterator[TrainingRows]:
    """Decides whether the trunk's outputs are cached, and logs the decision and the reason.

    Args:
      model: The whole network, with its layers frozen as the phase requires.
      config: The settings of the cache.
      device: The device to run on.
      train, val: The splits, whose rows are preprocessed images.
      run_dir: The run's folder, in which a cache on disk is created.
      share: The share of the rows on which this worker trains; None means all of them.
      epochs: Number of epochs that will read the rows.

    Yields:
      What to fit. The cache is released when the context ends.

    Raises:
      TrainingError: The settings ask for a cache for which there is not enough room.
    """
    trunk, top = split_at_border(model)
    is_augmented = config.augmentation != 'none'
    if trunk is None:
        plan = CachePlan('off', 'no layer is frozen')
    elif config.mix != 'none':
        plan = CachePlan('off', f'trainer.mix={config.mix} makes new images in every step')
    elif config.cache == 'off':
        plan = CachePlan('off', 'trainer.cache=off')
    elif is_augmented and not config.cached_views:
        plan = CachePlan('off', 'augmentation changes the pixels every epoch (trainer.cached_views=0)')
    else:
        share, folder = share or Share(), _choose_folder(config, run_dir)
        views = min(config.cached_views, epochs) if is_augmented else 1  # an epoch reads only one view
        shares = _Shares(share.get_rows(train.count), share.get_rows(val.count), views)
        get_trunk = functools.cache(functools.partial(make_trunk_function, trunk, device))
        shape, dtype = top.input_shape[1:], device.cache_dtype

        def measure() -> RowSeconds:
            compute = _measure_computing(get_trunk(), trunk, train, shares.train)
            return RowSeconds(compute=compute, read=measure_disk_reading(folder, shape, dtype))

        row_bytes = int(np.prod(shape)) * dtype.itemsize
        need = CacheNeed(shares.total, row_bytes, epochs, rows_per_epoch=len(shares.train) + len(shares.val))
        # Workers that train one model have to decide alike, and measurements differ.
        plan = plan_cache(config.cache, need, folder, measure if share.workers == 1 else None)
        if plan.kind != 'off':
            with _cache_rows(get_trunk, top, train, val, shares, dtype=dtype, plan=plan, folder=folder) as rows:
                yield rows
            return
    _log.info('cache off: %s', plan.reason)
    yield TrainingRows(model, train, val, 'off', lambda: None)
