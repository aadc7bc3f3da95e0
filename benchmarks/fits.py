"""The two sides that the training benchmarks compare: epochs on cached features, and plain `keras.Model.fit`."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import harness
from benchmarks.models import write_transform_graph
from components.data import cifar10
from components.data.cifar10 import read_records
from trainer.cache import FeatureCache, fill_cache, make_cache_reader
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, Split, make_batches, make_image_reader
from trainer.device import use_device
from trainer.inference_graph import InferenceGraph
from trainer.model import build_backbone, build_model, compile_model, split_at_border
from trainer.train import STEPS_PER_EXECUTION
from trainer.training_rows import TRUNK_BATCH


def read_images(folder: str, count: int, image_size: int, backbone: str = 'resnet50') -> tuple[str, Split]:
    """Returns a sentence that says which images are used, and a split of them, preprocessed by the Transform graph."""
    with tempfile.TemporaryDirectory() as temporary:
        sentence, files = harness.load_batches(Path(temporary), count)
        batches = [read_records(file.path, 0, file.records) for file in files]
    encoded = tf.io.encode_png(np.concatenate([batch.images for batch in batches]))
    labels = np.concatenate([batch.labels for batch in batches])
    transform_output = write_transform_graph(folder, image_size, backbone=backbone)
    reader = make_image_reader(encoded, transform_output, 'none', 0)
    return sentence, Split(encoded=encoded, labels=labels, read_rows=reader)


def _build(config: TrainerConfig) -> keras.Model:
    keras.utils.set_random_seed(config.seed)
    return build_model(config, build_backbone(config), cifar10.CONTRACT.num_classes)


def make_plain_fit(config: TrainerConfig, split: Split) -> Callable[[int], None]:
    """Makes a function that trains so many epochs with `keras.Model.fit`, as a Keras tutorial does.

    It fits the whole, partly frozen network in float32.
    """
    model = _build(config)
    compile_model(model, config)

    def fit(epochs: int) -> None:
        with use_device('float32'):
            batches = make_batches(split, EpochOrder(split.count, config.seed), config.batch_size)
            model.fit(batches, epochs=epochs, verbose=0)

    return fit


class CachedTraining:
    """A training as `trainer.training_rows` prepares it, in two steps that can be measured apart.

    The first step runs the trunk over all images and fills a cache in memory, the second trains the top on the cache.

    Args:
      config: The settings of the training.
      split: The split to train on.

    Raises:
      ValueError: The settings freeze no layer.
    """

    def __init__(self, config: TrainerConfig, split: Split):
        self._config, self._split = config, split
        with use_device(config.precision) as self.device:
            trunk, self._top = split_at_border(_build(config))
            if trunk is None:
                raise ValueError(f'trainer.train_from={config.train_from} freezes no layer, so nothing can be cached.')
            self._run = InferenceGraph(trunk, self.device.trunk_precision)
            self._shape = trunk.output_shape[1:]
            compile_model(self._top, config)
            self._top.steps_per_execution = STEPS_PER_EXECUTION

    def fill(self) -> None:
        """Runs the trunk over all images."""
        count = self._split.count
        self._cache = FeatureCache('memory', count, self._shape, self.device.cache_dtype, folder='')
        fill_cache(self._cache, self._split.read_rows, range(count), 1, self._run, TRUNK_BATCH)

    def fit(self, epochs: int) -> None:
        """Trains the top on the cache."""
        count = self._split.count
        with use_device(self._config.precision):
            reader = make_cache_reader(self._cache, range(count), 1)
            cached = replace(self._split, read_rows=reader)
            batches = make_batches(cached, EpochOrder(count, self._config.seed), self._config.batch_size)
            self._top.fit(batches, epochs=epochs, verbose=0)
