"""Labels: which version is stable or canary, changed so that TensorFlow Serving follows without a gap.

TensorFlow Serving refuses a whole reading of models.config in which a label names a version that it has not loaded
yet, and then loads nothing (UpdateModelVersionLabelMap in its server_core.cc). So a version is first listed, and
labelled in a later reading, when it is there.
"""

from collections.abc import Callable
from typing import Literal, get_args

from components.errors import PipelineError, UsageError
from components.places import Place
from components.serving.models_config import (
    CONFIG_FILE,
    MODEL_NAME,
    lock_config,
    read_config,
    set_versions,
    write_config,
)
from components.serving.versions import STABLE, list_folders, list_versions, remove_versions

Label = Literal['canary', 'stable']
Promotion = Literal['labelled', 'unchanged', 'listed']

# The label of the version that was stable before; it stays loaded, so that going back takes no time.
_PREVIOUS = 'previous'


def list_pushed(serving: Place, number: int) -> None:
    """Makes a server load a version that was just pushed, beside the labelled ones, so that it can be labelled.

    Without models.config there is nothing to do: such a server loads the newest version by itself.
    """
    if (serving / CONFIG_FILE).exists():
        with lock_config(serving):
            config = read_config(serving)
            set_versions(config, number)
            write_config(serving, config)


def promote(serving: Place, number: int, label: Label, wait_until_loaded: Callable[[], None] | None) -> Promotion:
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
    with lock_config(serving):
        folders, config = list_folders(serving), read_config(serving)
        if number not in folders:
            there = ', '.join(map(str, folders)) or 'none'
            raise UsageError(f'{serving} has no version {number}; there are: {there}.')
        current = config.version_labels.get(label)
        if current == number:
            return 'unchanged'
        if not config.name:  # and so no server that reads it yet
            config.name, config.base_path, config.model_platform = MODEL_NAME, str(serving.absolute()), 'tensorflow'
        elif number not in config.model_version_policy.specific.versions:
            set_versions(config, number)
            write_config(serving, config)
            if wait_until_loaded is None:
                return 'listed'
            wait_until_loaded()
        if label == STABLE and current is not None:
            config.version_labels[_PREVIOUS] = current
        config.version_labels[label] = number
        set_versions(config)
        write_config(serving, config)
    return 'labelled'


def rollback(serving: Place) -> tuple[int, int]:
    """Makes the version that was stable before stable again; it is still loaded, so one reading is enough.

    Returns:
      The version that is stable now, and the one that was.

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
                'the first one; `promote N` makes another version stable.'
            )
        good = config.version_labels[_PREVIOUS]
        if good not in list_folders(serving):
            raise PipelineError(f'Version {good}, which was stable before {bad}, is gone from {serving}.')
        config.version_labels[STABLE] = good
        del config.version_labels[_PREVIOUS]
        set_versions(config)
        write_config(serving, config)
    return good, bad


def prune(serving: Place, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions and those that models.config lists; returns their numbers."""
    if keep < 1:
        raise UsageError(f'--keep takes a number of at least 1. Received: {keep}')
    with lock_config(serving):
        old = [version for version in list_versions(serving)[:-keep] if not version.is_listed]
        remove_versions(serving, [version.folder for version in old])
    return [version.number for version in old]
