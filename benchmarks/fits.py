"""The two sides that the training benchmarks compare: epochs on kept outputs, and plain `keras.Model.fit`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import harness
from benchmarks.models import write_transform_graph
from components.data.cifar10 import read_records
from trainer.cache import FeatureCache, fill_cache, make_cached_rows
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, Records, Rows, make_batches, make_image_rows
from trainer.device import use_device
from trainer.inference_graph import InferenceGraph
from trainer.model import build_backbone, build_model, compile_model, split_at_border
from trainer.train import STEPS_PER_EXECUTION

_FROZEN_BATCH = 32


def read_images(folder: str, count: int, image_size: int) -> tuple[str, Rows, np.ndarray]:
    """A sentence that says which images, rows that read them through the Transform graph, and their labels."""
    with tempfile.TemporaryDirectory() as temporary:
        sentence, files = harness.load_batches(Path(temporary), count)
        batches = [read_records(file.path, 0, file.records) for file in files]
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    records = Records(tf.io.encode_png(images), labels)
    return sentence, make_image_rows(records, write_transform_graph(folder, image_size), 'none', 0), labels


def _build(config: TrainerConfig) -> keras.Model:
    keras.utils.set_random_seed(config.seed)
    return build_model(config, build_backbone(config))


def make_plain_fit(config: TrainerConfig, images: Rows, labels: np.ndarray) -> Callable[[int], None]:
    """Epochs of `keras.Model.fit` on the whole, partly frozen network in float32, as the walk-through does it."""
    model = _build(config)
    compile_model(model, config)

    def fit(epochs: int) -> None:
        with use_device('float32'):
            batches = make_batches(images, labels, EpochOrder(len(labels), config.seed), config.batch_size)
            model.fit(batches, epochs=epochs, verbose=0)

    return fit


class KeptOutputs:
    """What `trainer.training_rows` does, its two steps apart: the frozen layers once, then epochs on what they gave.

    Args:
      config: what to train.
      images, labels: the training rows.
      folder: for a cache on disk, where one is needed; here it is in memory.
    """

    def __init__(self, config: TrainerConfig, images: Rows, labels: np.ndarray, folder: str):
        self._config, self._images, self._labels, self._folder = config, images, labels, folder
        with use_device(config.precision) as self.device:
            trunk, self._top = split_at_border(_build(config))
            self._run = InferenceGraph(trunk, self.device.frozen_precision)
            self._shape = trunk.output_shape[1:]
            compile_model(self._top, config)
            self._top.steps_per_execution = STEPS_PER_EXECUTION

    def fill(self) -> None:
        """Runs the frozen layers over all rows."""
        count = len(self._labels)
        self._cache = FeatureCache('memory', count, self._shape, self.device.cache_dtype, self._folder)
        fill_cache(self._cache, self._images, range(count), 1, self._run, _FROZEN_BATCH)

    def fit(self, epochs: int) -> None:
        """Trains the rest on the kept outputs."""
        count = len(self._labels)
        with use_device(self._config.precision):
            rows = make_cached_rows(self._cache, range(count), 1)
            order = EpochOrder(count, self._config.seed)
            batches = make_batches(rows, self._labels, order, self._config.batch_size)
            self._top.fit(batches, epochs=epochs, verbose=0)
