"""The serving folder's versions: numbered folders that hold a SavedModel each, as TensorFlow Serving expects them."""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from components.places import Place, remove_folder
from components.serving.models_config import check_folder, list_loaded, read_config
from components.staging import stage_folder

STABLE = 'stable'  # the version label of the version that serves
MODEL_FILE = 'saved_model.pb'  # a numbered folder without this file is not a version
INFO_FILE = Path('assets.extra') / 'version.json'  # in a version; TensorFlow does not use what is in assets.extra
STATISTICS_FOLDER = Path('assets.extra') / 'statistics'  # TFDV's statistics of the data behind the version, by split
WARMUP_FILE = Path('assets.extra') / 'tf_serving_warmup_requests'  # TensorFlow Serving runs them after loading
PREDICTIONS_FILE = Path('assets.extra') / 'test_predictions.npz'  # components.model_gate.predictions.KeptPredictions
REFERENCE_FILE = Path('assets.extra') / 'reference.json'  # components.serving.reference.Reference

Listing = Literal['listed', 'unlisted', 'newest', 'older']
"""Whether models.config lists a version; without models.config, whether it is the newest version."""


class Version(NamedTuple):
    """A pushed model."""

    number: int
    """Name of the version's folder."""
    folder: Place
    """Path or URI of that folder."""
    info: dict[str, Any]
    """From `read_info`."""
    labels: tuple[str, ...]
    """The version labels that models.config gives it, sorted."""
    listing: Listing
    """Which decides whether a server loads the version."""

    @property
    def is_served(self) -> bool:
        """Whether a server on this serving folder loads the version."""
        return self.listing in ('listed', 'newest')


def _list_numbered(serving: Place) -> dict[int, Place]:
    """Returns all numbered folders, including incomplete ones, in ascending order."""
    names = [entry.name for entry in serving.iterdir()] if serving.is_dir() else []
    return {int(name): serving / name for name in sorted(filter(str.isdigit, names), key=int)}


def list_folders(serving: Place) -> dict[int, Place]:
    """Returns the folders that hold a SavedModel by number, in ascending order."""
    numbered = _list_numbered(serving)
    return {number: folder for number, folder in numbered.items() if (folder / MODEL_FILE).exists()}


def read_info(version: Place) -> dict[str, Any]:
    """Reads what the Pusher wrote about a version, see `components.pusher`; {} for one that the Pusher did not push."""
    path = version / INFO_FILE
    info: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return info


def find_newest_version(serving: Place) -> Place | None:
    """Returns the folder of the version with the highest number; None if there is no version."""
    return next(reversed(list_folders(serving).values()), None)


def find_serving_version(serving: Place) -> Place | None:
    """Returns the folder of the serving version: the stable one, else the newest; None if there is no version.

    Raises:
      PipelineError: models.config is damaged.
    """
    folders = list_folders(serving)
    stable = read_config(serving).version_labels.get(STABLE)
    return folders.get(stable) or next(reversed(folders.values()), None)


def list_versions(serving: Place) -> list[Version]:
    """Returns all pushed models, the oldest first.

    Raises:
      UsageError: the folder does not exist.
      PipelineError: models.config is damaged.
    """
    check_folder(serving)
    config, folders = read_config(serving), list_folders(serving)
    listed, versions = list_loaded(config), []
    for number, folder in folders.items():
        listing: Listing
        if listed:
            listing = 'listed' if number in listed else 'unlisted'
        else:
            listing = 'newest' if number == max(folders) else 'older'
        labels = tuple(sorted(label for label, labelled in config.version_labels.items() if labelled == number))
        versions.append(Version(number, folder, read_info(folder), labels, listing))
    return versions


def choose_version(serving: Place) -> int:
    """Returns the number for a version to push: seconds since 1970, as in TFX, but always above every number in use.

    The number of a removed version counts as in use while models.config names it.
    """
    config, numbered = read_config(serving), _list_numbered(serving)
    known = [*numbered, *config.version_labels.values(), *list_loaded(config)]
    return max(int(time.time()), max(known, default=0) + 1)


@contextlib.contextmanager
def stage_version(serving: Place) -> Iterator[Path]:
    """Gives an empty folder on this machine for preparing the folder that `publish` takes; removes it in the end."""
    if isinstance(serving, Path):
        with stage_folder(serving / 'version') as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def publish(staged: Path, serving: Place, number: int) -> None:
    """Makes a staged SavedModel a version, completely or not at all.

    An object store cannot rename a folder. There, MODEL_FILE is uploaded last, because it makes the folder a version.
    """
    target = serving / str(number)
    if isinstance(target, Path):
        staged.rename(target)
        return
    marker = staged / MODEL_FILE
    files = [file for file in staged.rglob('*') if file.is_file() and file != marker]
    try:
        for file in (*files, marker):
            (target / file.relative_to(staged).as_posix()).upload_from(file, force_overwrite_to_cloud=True)
    except BaseException:
        with contextlib.suppress(Exception):
            remove_folder(target)
        raise


def remove_versions(serving: Place, versions: list[Place]) -> None:
    """Removes versions, and also what a killed push or removal has left behind.

    The latter are numbered folders without MODEL_FILE below the newest version; a higher number may be a push that is
    not complete yet.
    """
    for version in versions:
        (version / MODEL_FILE).unlink()  # from now on the folder is not a version
    complete = list_folders(serving)
    for number, folder in _list_numbered(serving).items():
        if number not in complete and number < max(complete, default=0):
            remove_folder(folder)
