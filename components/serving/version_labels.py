"""Version labels: which version is stable or canary, changed so that TensorFlow Serving follows without a gap.

TensorFlow Serving refuses models.config as a whole, and loads nothing, if a version label in it names a version that
the server has not loaded yet (UpdateModelVersionLabelMap in its server_core.cc). So a version is first listed without
a label, and gets its label in a second change of the file, once the server has loaded it.
"""

import time
from typing import Literal, get_args

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from components.errors import PipelineError, UsageError
from components.places import Place
from components.progress import track
from components.serving.models_config import (
    CONFIG_FILE,
    MODEL_NAME,
    list_loaded,
    lock_config,
    read_config,
    set_loaded,
    write_config,
)
from components.serving.versions import STABLE, list_folders, list_versions, remove_versions

Label = Literal['canary', 'stable']
Promotion = Literal['labelled', 'unchanged', 'listed']

# The version label of the version that was stable before. That version stays loaded, so going back takes no time.
_PREVIOUS = 'previous'

_AVAILABLE = 'AVAILABLE'  # the state of a version that a server has loaded
_POLL_S = 1.0
_LOAD_TIMEOUT_S = 600.0
_REQUEST_TIMEOUT_S = 10.0


def list_pushed(serving: Place, number: int) -> None:
    """Makes a server load a version that was just pushed, beside the labelled ones, so that it can get a label.

    Without models.config there is nothing to do: such a server loads the newest version by itself.
    """
    if (serving / CONFIG_FILE).exists():
        with lock_config(serving):
            config = read_config(serving)
            set_loaded(config, number)
            write_config(serving, config)


def _keep_listed(serving: Place, number: int) -> None:
    """Lists a version again that a push or a different promotion has taken out of models.config since."""
    if number in list_loaded(read_config(serving)):
        return
    with lock_config(serving):
        config = read_config(serving)
        set_loaded(config, number, *list_loaded(config))
        write_config(serving, config)


def _ask_state(url: str) -> str:
    """Asks a server for the state of a version; what went wrong if the server does not tell."""
    try:
        response = requests.get(url, timeout=_REQUEST_TIMEOUT_S)
        response.raise_for_status()
        states = [str(status['state']) for status in response.json()['model_version_status']]
    except (InvalidSchema, InvalidURL, MissingSchema) as error:
        raise UsageError(f'--server takes a URL such as http://localhost:8501. Received: {url}') from error
    except (requests.RequestException, KeyError, TypeError) as error:
        return str(error)
    return _AVAILABLE if _AVAILABLE in states else ', '.join(states)


def wait_until_loaded(serving: Place, number: int, server: str, timeout_s: float = _LOAD_TIMEOUT_S) -> None:
    """Asks TensorFlow Serving's REST API for the state of a listed version until it is AVAILABLE.

    The caller must not hold the lock of models.config. A push during the wait may take the version out of the file;
    then it is listed again, because the server would not load it otherwise.

    Args:
      serving: the folder of versions.
      number: of the version.
      server: URL such as http://localhost:8501.
      timeout_s: seconds after which to stop asking.

    Raises:
      UsageError: `server` is not a URL.
      PipelineError: the server did not load the version in time, or the version was removed.
    """
    url = f'{server.rstrip("/")}/v1/models/{MODEL_NAME}/versions/{number}'
    deadline = time.monotonic() + timeout_s
    with track(f'waiting for version {number} at {server}'):
        while True:
            state = _ask_state(url)
            if state == _AVAILABLE:
                return
            if number not in list_folders(serving):
                raise PipelineError(
                    f'Version {number} was removed from {serving} while a server was loading it; no version label was '
                    'moved.'
                )
            if time.monotonic() > deadline:
                raise PipelineError(
                    f'{url} did not become AVAILABLE within {timeout_s:.0f} s (last answer: {state}); no version label '
                    'was moved. Does the server poll this models.config (--model_config_file_poll_wait_seconds)?'
                )
            _keep_listed(serving, number)
            time.sleep(_POLL_S)


def _label_or_list(serving: Place, number: int, label: Label) -> tuple[Promotion, int | None]:
    """Labels a version that is listed, or lists one that is not. The caller holds the lock.

    Returns:
      What was done; and the version that had the label until then, None if there was none.
    """
    folders, config = list_folders(serving), read_config(serving)
    if number not in folders:
        there = ', '.join(map(str, folders)) or 'none'
        raise UsageError(f'{serving} has no version {number}; there are: {there}.')
    before = config.version_labels.get(label)
    if before == number:
        return 'unchanged', before
    if not config.name:  # models.config does not exist, so no server reads it yet
        config.name, config.base_path, config.model_platform = MODEL_NAME, str(serving.absolute()), 'tensorflow'
    elif number not in list_loaded(config):
        set_loaded(config, number)
        write_config(serving, config)
        return 'listed', before
    if label == STABLE and before is not None:
        config.version_labels[_PREVIOUS] = before
    config.version_labels[label] = number
    set_loaded(config)
    write_config(serving, config)
    return 'labelled', before


def _check_unmoved(serving: Place, number: int, label: Label, before: int | None) -> None:
    """Checks that the version label is where it was before the server was waited for. The caller holds the lock.

    Args:
      serving, number, label: see `promote`.
      before: the version that had the label before the wait; None if there was none.
    """
    now = read_config(serving).version_labels.get(label)
    if now not in (before, number):
        moved = f'was moved to version {now}' if now is not None else f'was taken from version {before}'
        raise PipelineError(
            f'The version label {label} {moved} while a server was loading version {number}, and is left as it is; run '
            f'the same command again to give it to version {number}.'
        )


def promote(serving: Place, number: int, label: Label, server: str | None = None) -> Promotion:
    """Gives a version a version label. The version that was stable stays loaded as 'previous', for `rollback`.

    models.config is not locked while a server loads the version: others can push meanwhile.

    Args:
      serving: the folder of versions.
      number: of the version.
      label: 'stable' or 'canary'.
      server: URL of the server to wait for, if the version has to be loaded first; None leaves the label to a second
        call.

    Returns:
      'labelled'; 'unchanged' if the version had the label already; 'listed' if a second call has to follow.

    Raises:
      UsageError: there is no such version or label.
      PipelineError: while the server was loading the version, it did not finish, the version was removed, or the label
        was given to a different version.
    """
    if label not in get_args(Label):
        raise UsageError(f'A version label is one of {", ".join(get_args(Label))}. Received: {label}')
    with lock_config(serving):
        outcome, before = _label_or_list(serving, number, label)
    while outcome == 'listed' and server is not None:
        wait_until_loaded(serving, number, server)
        with lock_config(serving):
            _check_unmoved(serving, number, label, before)
            outcome, _ = _label_or_list(serving, number, label)
    return outcome


def rollback(serving: Place) -> tuple[int, int]:
    """Makes the version that was stable before stable again. It is still loaded, so one change of the file is enough.

    Returns:
      The version that is stable now, and the one that was stable until now.

    Raises:
      UsageError: no version was stable before this one, or the last promotion was taken back already.
      PipelineError: the version has been removed.
    """
    with lock_config(serving):
        config = read_config(serving)
        if STABLE not in config.version_labels:
            raise UsageError(f'{serving} has no stable version to go back from; `promote N` makes one.')
        bad = config.version_labels[STABLE]
        if _PREVIOUS not in config.version_labels:
            raise UsageError(
                f'There is no version before {bad} to go back to: the last promotion was taken back already, or was '
                'the first one; `promote N` makes a different version stable.'
            )
        good = config.version_labels[_PREVIOUS]
        if good not in list_folders(serving):
            raise PipelineError(
                f'Version {good}, which was stable before {bad}, has been removed from {serving}; `promote N` makes a '
                'different version stable.'
            )
        config.version_labels[STABLE] = good
        del config.version_labels[_PREVIOUS]
        set_loaded(config)
        write_config(serving, config)
    return good, bad


def prune(serving: Place, keep: int) -> list[int]:
    """Removes all versions except the newest `keep` and those that models.config lists; returns their numbers."""
    if keep < 1:
        raise UsageError(f'--keep takes a number of at least 1. Received: {keep}')
    with lock_config(serving):
        old = [version for version in list_versions(serving)[:-keep] if not version.is_served]
        remove_versions(serving, [version.folder for version in old])
    return [version.number for version in old]
