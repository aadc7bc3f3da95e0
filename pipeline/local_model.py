"""A pushed model in this process: of the libraries it needs only TensorFlow."""

from collections.abc import Sequence

import tensorflow as tf

from components import features
from components.errors import UsageError, to_one_line
from components.model_gate.predictions import choose_batch_size
from components.places import Place, fetch
from components.progress import track
from components.saved_model import skip_costly_passes
from components.serving.models_config import read_config
from components.serving.versions import MODEL_FILE, find_serving_version, list_folders
from pipeline.classifier import OUTPUT_ERROR, Classifier, RefusedError, Reply

_TEXTS = (features.OUTPUT_CLASS_NAME, OUTPUT_ERROR)


class _LoadedModel:
    """A SavedModel, see `pipeline.classifier.Model`."""

    concurrency = 2

    def __init__(self, version: Place, name: str):
        self.name = name
        self.batch_size = choose_batch_size()
        self._version = int(version.name) if version.name.isdigit() else None
        try:
            with track('loading the model'), fetch(version) as folder:
                self._loaded = tf.saved_model.load(str(folder))
            self._signatures = {name: skip_costly_passes(each) for name, each in self._loaded.signatures.items()}
            self._signatures[features.SIGNATURE_SERVING_DEFAULT]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UsageError(f'{version} cannot be loaded as a model of this pipeline: {to_one_line(error)}') from error

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        """Runs a signature, see `pipeline.classifier.Model`."""
        if signature not in self._signatures:
            raise RefusedError(f'cannot be classified: {self.name} has no signature {signature}')
        try:
            outputs = self._signatures[signature](**{features.IMAGE_KEY: tf.constant(images)})
        except tf.errors.InvalidArgumentError as error:
            raise RefusedError('is not an image that can be decoded; give a PNG or JPEG file') from error
        columns = {name: output.numpy().tolist() for name, output in outputs.items()}
        for name in columns.keys() & _TEXTS:
            columns[name] = [text.decode() for text in columns[name]]
        return Reply(self._version, columns)

    def close(self) -> None:
        """Does nothing: the memory is given back with the object."""


def choose_version(model: Place, label: str | None = None, number: int | None = None) -> Place:
    """Returns a version's folder, see `load_model`."""
    if (model / MODEL_FILE).exists():
        if label is not None or number is not None:
            raise UsageError(f'{model} is one version already; --label and --version choose one of a serving folder.')
        return model
    folders = list_folders(model)
    if not folders:
        raise UsageError(
            f'{model} holds neither a SavedModel nor numbered versions; --model takes a folder that a run pushed to.'
        )
    if label is not None:
        labels = read_config(model).version_labels
        if label not in labels:
            there = ', '.join(sorted(labels)) or 'none; `promote` gives one'
            raise UsageError(f'No version of {model} has the version label {label}; there are: {there}.')
        number = labels[label]
    version = folders.get(number) if number is not None else find_serving_version(model)
    if version is None:
        raise UsageError(f'{model} has no version {number}; there are: {", ".join(map(str, folders))}.')
    return version


def load_model(model: Place, label: str | None = None, version: int | None = None) -> Classifier:
    """Loads a pushed model into this process.

    Args:
      model: a version's folder, or a serving folder.
      label: in a serving folder, the version label of the version to load.
      version: in a serving folder, the number of the version. Without either the stable version is taken, or else the
        newest one.

    Raises:
      UsageError: there is no such version, or it is not a model of this pipeline.
      PipelineError: models.config is damaged.
    """
    folder = choose_version(model, label, version)
    return Classifier(_LoadedModel(folder, str(folder.parent if folder.name.isdigit() else folder)))
