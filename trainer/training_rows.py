"""Decides what an epoch reads: the images, or the trunk's outputs for them, which are computed once and cached.

The trunk is the part of the network in which all layers are frozen. What comes after it is the top.
"""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.cache import CacheKind, CachePlan, FeatureCache, fill_cache, make_cache_reader, plan_cache
from trainer.cluster import Share
from trainer.config import TrainerConfig
from trainer.dataset import Split
from trainer.device import Device
from trainer.inference_graph import InferenceGraph
from trainer.model import split_at_border

TRUNK_BATCH = 32  # images that the trunk takes at once
_log = logging.getLogger('trainer')


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


def _make_trunk_function(trunk: keras.Model, device: Device) -> Callable[[tf.Tensor], tf.Tensor]:
    if not device.is_gpu:
        return InferenceGraph(trunk, device.trunk_precision)
    run: Callable[[tf.Tensor], tf.Tensor] = tf.function(lambda images: trunk(images, training=False))
    return run


def _measure_image_seconds(run: Callable[[tf.Tensor], tf.Tensor], split: Split) -> float:
    """Measures how many seconds the trunk takes for an image, on one batch after a warm-up."""
    batch = split.read_rows(tf.range(min(TRUNK_BATCH, split.count), dtype=tf.int64), tf.constant(0, tf.int64))
    run(batch)
    begin = time.monotonic()
    run(batch)
    return (time.monotonic() - begin) / len(batch)


def _choose_folder(config: TrainerConfig, run_dir: str) -> str:
    """Returns a local folder for a cache on disk: the run's folder, or a temporary one if that is remote."""
    folder = config.cache_dir or (tempfile.gettempdir() if '://' in run_dir else run_dir)
    os.makedirs(folder, exist_ok=True)
    return folder


@contextlib.contextmanager
def _cache_rows(
    trunk: keras.Model,
    top: keras.Model,
    device: Device,
    train: Split,
    val: Split,
    share: Share,
    *,
    views: int,
    plan: CachePlan,
    folder: str,
) -> Iterator[TrainingRows]:
    """Creates a cache of the trunk's outputs for each split; the top is fitted on the cached rows."""
    train_rows, val_rows = share.get_rows(train.count), share.get_rows(val.count)
    count = len(train_rows) * views + len(val_rows)
    shape, dtype = trunk.output_shape[1:], device.cache_dtype
    with contextlib.ExitStack() as stack:
        train_cache = FeatureCache(plan.kind, len(train_rows) * views, shape, dtype, folder)
        stack.callback(train_cache.close)
        val_cache = FeatureCache(plan.kind, len(val_rows), shape, dtype, folder)
        stack.callback(val_cache.close)

        def fill() -> None:
            run = _make_trunk_function(trunk, device)
            forecast = count * _measure_image_seconds(run, train)
            _log.info(
                'cache in %s: %s; the frozen layers run once over %d images, about %.0f s',
                *(plan.kind, plan.reason, count, forecast),
            )
            seconds = fill_cache(train_cache, train.read_rows, train_rows, views, run, TRUNK_BATCH)
            seconds += fill_cache(val_cache, val.read_rows, val_rows, 1, run, TRUNK_BATCH)
            _log.info('frozen layers took %.1f s, %.1f images/s', seconds, count / seconds)

        cached_train = replace(train, read_rows=make_cache_reader(train_cache, train_rows, views))
        cached_val = replace(val, read_rows=make_cache_reader(val_cache, val_rows, 1))
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
) -> Iterator[TrainingRows]:
    """Decides whether the trunk's outputs are cached, and logs the decision and the reason.

    Args:
      model: The whole network, with its layers frozen as the phase requires.
      config: The settings of the cache.
      device: The device to run on.
      train, val: The splits, whose rows are preprocessed images.
      run_dir: The run's folder, in which a cache on disk is created.
      share: The share of the rows on which this worker trains; None means all of them.

    Yields:
      What to fit. The cache is released when the context ends.

    Raises:
      TrainingError: The settings ask for a cache for which there is not enough room.
    """
    trunk, top = split_at_border(model)
    if trunk is None or config.mix != 'none':
        reason = 'no layer is frozen' if trunk is None else f'trainer.mix={config.mix} makes new images in every step'
        _log.info('cache off: %s', reason)
        yield TrainingRows(model, train, val, 'off', lambda: None)
        return
    share, folder = share or Share(), _choose_folder(config, run_dir)
    is_augmented = config.augmentation != 'none'
    views = config.cached_views if is_augmented else 1
    count = len(share.get_rows(train.count)) * views + len(share.get_rows(val.count))
    plan = plan_cache(
        config.cache,
        bytes_needed=count * int(np.prod(trunk.output_shape[1:])) * device.cache_dtype.itemsize,
        folder=folder,
        is_augmented=is_augmented,
        cached_views=config.cached_views,
    )
    if plan.kind == 'off':
        _log.info('cache off: %s', plan.reason)
        yield TrainingRows(model, train, val, 'off', lambda: None)
        return
    with _cache_rows(trunk, top, device, train, val, share, views=views, plan=plan, folder=folder) as rows:
        yield rows
