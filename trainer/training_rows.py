"""What an epoch of training runs on: images, or the frozen layers' outputs, computed once."""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.cache import CacheKind, FeatureCache, fill_cache, make_cached_rows, plan_cache
from trainer.cluster import Share
from trainer.config import TrainerConfig
from trainer.dataset import Rows
from trainer.device import Device
from trainer.inference_graph import InferenceGraph
from trainer.model import split_at_border

_log = logging.getLogger('trainer')
_FROZEN_BATCH = 32


class TrainingRows(NamedTuple):
    """What to fit on what.

    model: the whole network when nothing is cached, else the part above the frozen layers, sharing its weights.
    train, val: read its inputs, once `fill` was called.
    cache: where they are kept.
    fill: runs the frozen layers, where anything is kept.
    """

    model: keras.Model
    train: Rows
    val: Rows
    cache: CacheKind
    fill: Callable[[], None]


class Split(NamedTuple):
    """A split's preprocessed images. images: reads them; count: how many there are."""

    images: Rows
    count: int


def _make_trunk_function(trunk: keras.Model, device: Device) -> Callable[[tf.Tensor], tf.Tensor]:
    if device.is_gpu:
        return tf.function(lambda images: trunk(images, training=False))
    return InferenceGraph(trunk, device.frozen_precision)


def _measure_row_seconds(run: Callable[[tf.Tensor], tf.Tensor], split: Split) -> float:
    """Seconds the frozen layers take for an image, from one batch after a warm-up."""
    batch = split.images(tf.range(min(_FROZEN_BATCH, split.count), dtype=tf.int64), tf.constant(0, tf.int64))
    run(batch)
    begin = time.monotonic()
    run(batch)
    return (time.monotonic() - begin) / len(batch)


def _choose_folder(config: TrainerConfig, run_dir: str) -> str:
    """A local folder for the cache's file: the run's, or the system's where the run's is remote."""
    folder = config.cache_dir or (tempfile.gettempdir() if '://' in run_dir else run_dir)
    os.makedirs(folder, exist_ok=True)
    return folder


@contextlib.contextmanager
def prepare_rows(
    model: keras.Model,
    config: TrainerConfig,
    device: Device,
    train: Split,
    val: Split,
    run_dir: str,
    share: Share | None = None,
) -> Iterator[TrainingRows]:
    """Decides whether the frozen layers run once over both splits, and says what it decided and why.

    Args:
      model: with its layers frozen as they shall be trained.
      config: what to cache, and where.
      device: what to run on.
      train, val: the images.
      run_dir: of the run, where a file goes.
      share: which rows are trained on here; None is all.

    Yields:
      What to fit; the cache lives until the context ends.

    Raises:
      TrainingError: the cache that was asked for has no room.
    """
    trunk, top = split_at_border(model)
    if trunk is None:
        _log.info('cache off: no layer is frozen')
        yield TrainingRows(model, train.images, val.images, 'off', lambda: None)
        return
    share = share or Share()
    train_rows, val_rows = (range(share.worker, split.count, share.workers) for split in (train, val))
    views = config.cached_views if config.augmentation != 'none' else 1
    shape, dtype, folder = trunk.output_shape[1:], device.cache_dtype, _choose_folder(config, run_dir)
    rows = len(train_rows) * views + len(val_rows)
    plan = plan_cache(
        config.cache,
        bytes_needed=rows * int(np.prod(shape)) * dtype.itemsize,
        folder=folder,
        is_augmented=config.augmentation != 'none',
        cached_views=config.cached_views,
    )
    if plan.kind == 'off':
        _log.info('cache off: %s', plan.reason)
        yield TrainingRows(model, train.images, val.images, 'off', lambda: None)
        return
    with contextlib.ExitStack() as stack:
        train_cache = FeatureCache(plan.kind, len(train_rows) * views, shape, dtype, folder)
        stack.callback(train_cache.close)
        val_cache = FeatureCache(plan.kind, len(val_rows), shape, dtype, folder)
        stack.callback(val_cache.close)

        def fill() -> None:
            run = _make_trunk_function(trunk, device)
            forecast = rows * _measure_row_seconds(run, train)
            decided = f'cache in {plan.kind}: {plan.reason}'
            _log.info('%s; %d images once through the frozen layers, about %.0f s', decided, rows, forecast)
            seconds = fill_cache(train_cache, train.images, train_rows, views, run, _FROZEN_BATCH)
            seconds += fill_cache(val_cache, val.images, val_rows, 1, run, _FROZEN_BATCH)
            _log.info('frozen layers took %.1f s, %.1f images/s', seconds, rows / seconds)

        readers = make_cached_rows(train_cache, train_rows, views), make_cached_rows(val_cache, val_rows, 1)
        yield TrainingRows(top, *readers, plan.kind, fill)
