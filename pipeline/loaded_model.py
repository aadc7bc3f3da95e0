"""A SavedModel that is loaded into this process: of the libraries it needs only TensorFlow."""

from collections.abc import Sequence

import tensorflow as tf

from components import features
from components.errors import UsageError, to_one_line
from components.model_contract import read_model_contract
from components.model_gate.predictions import BATCHES_AT_ONCE, choose_batch_size
from components.places import Place, fetch
from components.progress import track
from components.saved_model import skip_costly_passes
from pipeline.classifier import Interface, RefusedError, Reply

_TEXTS = (features.OUTPUT_CLASS_NAME, features.OUTPUT_ERROR)


class LoadedModel:
    """A SavedModel, see `pipeline.classifier.Model`.

    Args:
      version: its folder.
      name: how it is called in messages.

    Raises:
      UsageError: it cannot be loaded, or is not a model of this pipeline.
    """

    concurrency = BATCHES_AT_ONCE

    def __init__(self, version: Place, name: str):
        self.name = name
        self.batch_size = choose_batch_size()
        self._version = int(version.name) if version.name.isdigit() else None
        try:
            with track('loading the model'), fetch(version) as folder:
                self._loaded = tf.saved_model.load(str(folder))
                self._contract = read_model_contract(folder)
            self._signatures = {name: skip_costly_passes(each) for name, each in self._loaded.signatures.items()}
            self._signatures[features.SIGNATURE_SERVING_DEFAULT]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UsageError(f'{version} cannot be loaded as a model of this pipeline: {to_one_line(error)}') from error

    def describe(self) -> Interface:
        """Says what the model can be asked."""
        return Interface(frozenset(self._signatures), self._contract.image_size)

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        """Runs a signature, see `pipeline.classifier.Model`."""
        if signature not in self._signatures:
            raise RefusedError(f'cannot be classified: {self.name} has no signature {signature}')
        try:
            outputs = self._signatures[signature](**{features.IMAGE_KEY: tf.constant(images)})
        except tf.errors.InvalidArgumentError as error:
            raise RefusedError('is not an image that can be decoded; give a PNG, JPEG or WEBP file') from error
        columns = {name: output.numpy().tolist() for name, output in outputs.items()}
        for name in columns.keys() & _TEXTS:
            columns[name] = [text.decode() for text in columns[name]]
        return Reply(self._version, columns)

    def name_classes(self, labels: Sequence[int]) -> list[str]:
        """Returns the names of classes, see `pipeline.classifier.Model`; '' for a label that is no class."""
        names = self._contract.class_names
        return [names[label] if label < len(names) else '' for label in labels]

    def close(self) -> None:
        """Does nothing: the memory is given back with the object."""
