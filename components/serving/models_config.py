"""models.config: which versions of the model TensorFlow Serving loads, and their version labels.

The file lies in the serving folder. A server that was started with --model_config_file_poll_wait_seconds reads it again
and again. `components.serving.version_labels` changes its content.
"""

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineError, StorageError, UsageError, to_one_line
from components.places import Place, write_place

CONFIG_FILE = 'models.config'
MODEL_NAME = 'cifar10'
_LOCK_ATTEMPTS, _LOCK_WAIT_S = 7, 10.0


def check_folder(serving: Place) -> None:
    """Checks that the serving folder exists.

    Raises:
      UsageError: it does not exist, or is not a folder.
    """
    if not serving.is_dir():
        raise UsageError(f'{serving} is not a folder; --serving takes the folder that `run` pushes to, ROOT/serving.')


def read_config(serving: Place) -> model_server_config_pb2.ModelConfig:
    """Reads the only model of models.config; an empty one if there is no such file.

    Raises:
      PipelineError: the file is damaged, or lists several models or none.
    """
    path = serving / CONFIG_FILE
    if not path.exists():
        return model_server_config_pb2.ModelConfig()
    try:
        configs = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig()).model_config_list
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise PipelineError(
            f'{path} is not a configuration of TensorFlow Serving ({error}); correct the file.'
        ) from error
    if len(configs.config) != 1:
        raise PipelineError(
            f'{path} lists {len(configs.config)} models, and exactly one is expected; list others in a file elsewhere.'
        )
    return configs.config[0]


def write_config(serving: Place, config: model_server_config_pb2.ModelConfig) -> None:
    """Replaces models.config in one step, so that a server reads either the old content or the new one."""
    listed = model_server_config_pb2.ModelServerConfig(model_config_list={'config': [config]})
    write_place(serving / CONFIG_FILE, text_format.MessageToString(listed))


def list_loaded(config: model_server_config_pb2.ModelConfig) -> list[int]:
    """Returns the numbers of the versions that models.config makes a server load."""
    return list(config.model_version_policy.specific.versions)


def set_loaded(config: model_server_config_pb2.ModelConfig, *unlabelled: int) -> None:
    """Makes a server load the versions that have a version label, and those in `unlabelled`, and no others."""
    del config.model_version_policy.specific.versions[:]
    config.model_version_policy.specific.versions.extend(sorted({*config.version_labels.values(), *unlabelled}))


@contextlib.contextmanager
def lock_config(serving: Place) -> Iterator[None]:
    """Keeps other processes from changing models.config while the caller reads, changes and writes it.

    A push takes this lock too, so nobody may hold it while waiting for a server. An object store has no locks; there,
    the last one who writes wins.

    Raises:
      UsageError: the serving folder does not exist.
      StorageError: the volume gives no locks.
    """
    check_folder(serving)
    if not isinstance(serving, Path):
        yield
        return
    with (serving / '.lock').open('a') as file:
        _wait_for_lock(file)
        yield


def _wait_for_lock(file: TextIO) -> None:
    """Waits for the lock, and up to a minute for a volume that has none to give, such as NFS while its server restarts.

    On Kubeflow this is in place of a retry of the step, which a server may not make.
    """
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            return
        except OSError as error:
            if error.errno != errno.ENOLCK or attempt + 1 == _LOCK_ATTEMPTS:
                raise StorageError(
                    f"{file.name} cannot be locked: {to_one_line(error)}. Check the volume's server of locks (for NFS "
                    'lockd), or use a serving folder on a different volume.'
                ) from error
            time.sleep(_LOCK_WAIT_S)
