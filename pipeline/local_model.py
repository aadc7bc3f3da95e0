"""Chooses and loads a pushed model, to classify images in this process."""

from components.errors import UsageError
from components.places import Place
from components.serving.models_config import read_config
from components.serving.versions import MODEL_FILE, find_serving_version, list_folders
from pipeline.classifier import Classifier
from pipeline.imports import TENSORFLOW_MODULES, track_imports


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
    with track_imports(TENSORFLOW_MODULES):
        from pipeline.loaded_model import LoadedModel

    return Classifier(LoadedModel(folder, str(folder.parent if folder.name.isdigit() else folder)))
