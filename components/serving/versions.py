"""The serving folder's versions: numbered folders that hold a SavedModel each, as TensorFlow Serving expects them."""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.places import Place, remove_folder
from components.serving.models_config import check_folder, read_config
from components.staging import stage_folder

STABLE = 'stable'  # the label of the version that serves
MODEL_FILE = 'saved_model.pb'  # a folder without it is no version
INFO_FILE = Path('assets.extra') / 'version.json'  # in a version; TensorFlow leaves assets.extra alone
STATISTICS_FOLDER = Path('assets.extra') / 'statistics'  # beside it: TFDV's, of the data it was made with, by split


class Version(NamedTuple):
    """A pushed model.

    number: the folder's name.
    folder: where it is.
    info: from `read_info`.
    labels: that name it in models.config.
    is_listed: whether models.config makes the server load it; True where there is no models.config and it is newest.
    """

    number: int
    folder: Place
    info: dict
    labels: tuple[str, ...]
    is_listed: bool


def _list_numbered(serving: Place) -> dict[int, Place]:
    """All numbered folders, half-written ones too, in ascending order."""
    names = [entry.name for entry in serving.iterdir()] if serving.is_dir() else []
    return {int(name): serving / name for name in sorted(filter(str.isdigit, names), key=int)}


def list_folders(serving: Place) -> dict[int, Place]:
    """The folders that hold a SavedModel by number, in ascending order."""
    numbered = _list_numbered(serving)
    return {number: folder for number, folder in numbered.items() if (folder / MODEL_FILE).exists()}


def read_info(version: Place) -> dict:
    """What the Pusher wrote of a version, see `components.pusher`; empty for one that something else put there."""
    path = version / INFO_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def find_newest_version(serving: Place) -> Place | None:
    """The sub-folder with the highest number that holds a SavedModel; None where there is none."""
    return next(reversed(list_folders(serving).values()), None)


def find_serving_version(serving: Place) -> Place | None:
    """The version that is serving: the stable one, else the newest; None where there is none.

    Raises:
      PipelineError: models.config is damaged.
    """
    folders = list_folders(serving)
    stable = read_config(serving).version_labels.get(STABLE)
    return folders.get(stable) or next(reversed(folders.values()), None)


def list_versions(serving: Place) -> list[Version]:
    """All pushed models, the oldest first.

    Raises:
      UsageError: the folder does not exist.
      PipelineError: models.config is damaged.
    """
    check_folder(serving)
    config, folders = read_config(serving), list_folders(serving)
    listed = list(config.model_version_policy.specific.versions) or [*folders][-1:]
    versions = []
    for number, folder in folders.items():
        labels = tuple(sorted(label for label, of in config.version_labels.items() if of == number))
        versions.append(Version(number, folder, read_info(folder), labels, number in listed))
    return versions


def choose_version(serving: Place) -> int:
    """The number of a version to push: seconds since 1970, as TFX has it, but always over every number in use.

    A removed version's number is not used again while models.config knows it.
    """
    config, numbered = read_config(serving), _list_numbered(serving)
    known = [*numbered, *config.version_labels.values(), *config.model_version_policy.specific.versions]
    return max(int(time.time()), max(known, default=0) + 1)


@contextlib.contextmanager
def stage_version(serving: Place) -> Iterator[Path]:
    """Gives an empty folder on this machine, in which to make what `publish` takes; what is left in it is removed."""
    if isinstance(serving, Path):
        with stage_folder(serving / 'version') as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def publish(staged: Path, serving: Place, number: int) -> None:
    """Makes a staged SavedModel a version, whole or not at all.

    An object store renames nothing: there MODEL_FILE, which makes a folder a version, is uploaded last.
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
    """Removes versions, and what killed calls left of others: numbered folders below the newest without MODEL_FILE."""
    for version in versions:
        (version / MODEL_FILE).unlink()  # from here on it is no version
    whole = list_folders(serving)
    for number, folder in _list_numbered(serving).items():
        if number not in whole and number < max(whole, default=0):
            remove_folder(folder)
