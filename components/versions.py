"""The serving folder: numbered versions of a SavedModel, and models.config, which labels them for TensorFlow Serving.

TensorFlow Serving reads `models.config` again and again (--model_config_file_poll_wait_seconds). It refuses a whole
reading in which a label names a version that it has not loaded yet, and then loads nothing (UpdateModelVersionLabelMap
in its server_core.cc). So a version is first listed, and labelled in a later reading, when it is there.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineError, UsageError

Label = Literal['canary', 'stable']
Promotion = Literal['labelled', 'unchanged', 'listed']
STABLE: Label = 'stable'
CONFIG_FILE = 'models.config'
INFO_FILE = Path('assets.extra') / 'version.json'  # in a version; TensorFlow leaves assets.extra alone
STATISTICS_FOLDER = Path('assets.extra') / 'statistics'  # beside it: TFDV's, of the data it was made with, by split
MODEL_NAME = 'cifar10'

# The label of the version that was stable before; it stays loaded, so that going back takes no time.
_PREVIOUS = 'previous'


class Version(NamedTuple):
    """A pushed model.

    number: the folder's name.
    folder: where it is.
    info: from `read_info`.
    labels: that name it in models.config.
    is_listed: whether models.config makes the server load it; True where there is no models.config and it is newest.
    """

    number: int
    folder: Path
    info: dict
    labels: tuple[str, ...]
    is_listed: bool


def locate_serving(place: str) -> Path:
    """The serving folder that a setting names.

    Raises:
      UsageError: it is a URI; a version can only appear whole where a folder can be renamed.
    """
    if '://' in place:
        raise UsageError(f'The serving folder has to be a path, such as one on a volume, and no URI. Received: {place}')
    return Path(place)


def _list_folders(serving: Path) -> dict[int, Path]:
    """The folders that hold a SavedModel by number, in ascending order."""
    if not serving.is_dir():
        return {}
    folders = {int(folder.name): folder for folder in serving.iterdir() if folder.name.isdigit()}
    return {number: folders[number] for number in sorted(folders) if (folders[number] / 'saved_model.pb').exists()}


def read_info(version: Path) -> dict:
    """What the Pusher wrote of a version, see `components.pusher`; empty for one that something else put there."""
    path = version / INFO_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def find_newest_version(serving: Path) -> Path | None:
    """The sub-folder with the highest number that holds a SavedModel; None where there is none."""
    return next(reversed(_list_folders(serving).values()), None)


def find_serving_version(serving: Path) -> Path | None:
    """The version that is serving: the stable one, else the newest; None where there is none.

    Raises:
      PipelineError: models.config is damaged.
    """
    folders = _list_folders(serving)
    stable = _read_config(serving).version_labels.get(STABLE)
    return folders.get(stable) or find_newest_version(serving)


def choose_version(serving: Path) -> int:
    """The number of a version to push: seconds since 1970, as TFX has it, but always over every number in use.

    A removed version's number is not used again while models.config knows it.
    """
    numbers = [int(folder.name) for folder in serving.iterdir() if folder.name.isdigit()] if serving.is_dir() else []
    config = _read_config(serving)
    known = [*numbers, *config.version_labels.values(), *config.model_version_policy.specific.versions]
    return max(int(time.time()), max(known, default=0) + 1)


def _read_config(serving: Path) -> model_server_config_pb2.ModelConfig:
    """The one model of models.config; an empty one where there is no such file.

    Raises:
      PipelineError: the file is damaged, or lists other models.
    """
    path = serving / CONFIG_FILE
    if not path.exists():
        return model_server_config_pb2.ModelConfig()
    try:
        configs = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig()).model_config_list
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise PipelineError(f'{path} is not a configuration of TensorFlow Serving ({error}); mend it.') from error
    if len(configs.config) != 1:
        raise PipelineError(f'{path} lists {len(configs.config)} models, and one is expected; keep others elsewhere.')
    return configs.config[0]


def _write_config(serving: Path, config: model_server_config_pb2.ModelConfig) -> None:
    """Replaces models.config whole; a server that reads meanwhile sees the old one or the new one."""
    listed = model_server_config_pb2.ModelServerConfig(model_config_list={'config': [config]})
    path = serving / CONFIG_FILE
    staging = path.with_name(f'.{CONFIG_FILE}.partial-{os.getpid()}')
    staging.write_text(text_format.MessageToString(listed))
    staging.replace(path)


def _set_versions(config: model_server_config_pb2.ModelConfig, *more: int) -> None:
    """Lists the labelled versions and `more`, which is what the server loads."""
    del config.model_version_policy.specific.versions[:]
    config.model_version_policy.specific.versions.extend(sorted({*config.version_labels.values(), *more}))


def _check_folder(serving: Path) -> None:
    if not serving.is_dir():
        raise UsageError(f'{serving} is no folder; --serving takes the one that `run` pushes to, ROOT/serving.')


def list_versions(serving: Path) -> list[Version]:
    """All pushed models, the oldest first.

    Raises:
      UsageError: the folder does not exist.
      PipelineError: models.config is damaged.
    """
    _check_folder(serving)
    config, folders = _read_config(serving), _list_folders(serving)
    listed = list(config.model_version_policy.specific.versions) or [*folders][-1:]
    versions = []
    for number, folder in folders.items():
        labels = tuple(sorted(label for label, of in config.version_labels.items() if of == number))
        versions.append(Version(number, folder, read_info(folder), labels, number in listed))
    return versions


@contextlib.contextmanager
def _lock(serving: Path) -> Iterator[None]:
    """Keeps other processes from changing models.config between our reading and writing it."""
    _check_folder(serving)
    with (serving / '.lock').open('a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def list_pushed(serving: Path, number: int) -> None:
    """Makes a server load a version that was just pushed, beside the labelled ones, so that it can be labelled.

    Without models.config there is nothing to do: such a server loads the newest version by itself.
    """
    if (serving / CONFIG_FILE).exists():
        with _lock(serving):
            config = _read_config(serving)
            _set_versions(config, number)
            _write_config(serving, config)


def promote(serving: Path, number: int, label: Label, wait_until_loaded: Callable[[], None] | None) -> Promotion:
    """Gives a version a label. The one that was stable stays loaded as 'previous', for `rollback`.

    Args:
      serving: the folder of versions.
      number: of the version.
      label: 'stable' or 'canary'.
      wait_until_loaded: called after a version that was not listed has been, returns when the server has loaded it;
        None leaves the label to another call.

    Returns:
      'labelled'; 'unchanged' where the version had the label already; 'listed' where another call has to follow.

    Raises:
      UsageError: there is no such version or label.
    """
    if label not in get_args(Label):
        raise UsageError(f'A label is one of {", ".join(get_args(Label))}. Received: {label}')
    with _lock(serving):
        folders, config = _list_folders(serving), _read_config(serving)
        if number not in folders:
            there = ', '.join(map(str, folders)) or 'none'
            raise UsageError(f'{serving} has no version {number}; there are: {there}.')
        current = config.version_labels.get(label)
        if current == number:
            return 'unchanged'
        if not config.name:  # and so no server that reads it yet
            config.name, config.base_path, config.model_platform = MODEL_NAME, str(serving.absolute()), 'tensorflow'
        elif number not in config.model_version_policy.specific.versions:
            _set_versions(config, number)
            _write_config(serving, config)
            if wait_until_loaded is None:
                return 'listed'
            wait_until_loaded()
        if label == STABLE and current is not None:
            config.version_labels[_PREVIOUS] = current
        config.version_labels[label] = number
        _set_versions(config)
        _write_config(serving, config)
    return 'labelled'


def rollback(serving: Path) -> tuple[int, int]:
    """Makes the version that was stable before stable again; it is still loaded, so one reading is enough.

    Returns:
      The version that is stable now, and the one that was.

    Raises:
      UsageError: no version was stable before this one, or the last promotion was taken back already.
      PipelineError: the version has been removed.
    """
    with _lock(serving):
        config = _read_config(serving)
        if STABLE not in config.version_labels:
            raise UsageError(f'{serving} has no stable version to go back from; `promote N` makes one.')
        bad = config.version_labels[STABLE]
        if _PREVIOUS not in config.version_labels:
            raise UsageError(
                f'There is no version before {bad} to go back to: the last promotion was taken back already, or was '
                'the first one; `promote N` makes another version stable.'
            )
        good = config.version_labels[_PREVIOUS]
        if good not in _list_folders(serving):
            raise PipelineError(f'Version {good}, which was stable before {bad}, is gone from {serving}.')
        config.version_labels[STABLE] = good
        del config.version_labels[_PREVIOUS]
        _set_versions(config)
        _write_config(serving, config)
    return good, bad


def prune(serving: Path, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions and those that models.config lists; returns their numbers."""
    if keep < 1:
        raise UsageError(f'--keep takes a number of at least 1. Received: {keep}')
    with _lock(serving):
        old = [version for version in list_versions(serving)[:-keep] if not version.is_listed]
        for version in old:  # renamed first: a poller never sees half a version
            version.folder.rename(version.folder.with_name(f'.{version.number}.removed'))
        for folder in serving.glob('.*.removed'):  # of a killed call too
            shutil.rmtree(folder)
    return [version.number for version in old]
