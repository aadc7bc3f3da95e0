"""models.config: which versions of the model TensorFlow Serving loads, and their labels.

It lies in the serving folder, and the server reads it again and again (--model_config_file_poll_wait_seconds). What is
in it changes in `components.serving.version_labels`.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineError, UsageError
from components.places import Place

CONFIG_FILE = 'models.config'
MODEL_NAME = 'cifar10'


def check_folder(serving: Place) -> None:
    """Checks that there is a serving folder.

    Raises:
      UsageError: there is none.
    """
    if not serving.is_dir():
        raise UsageError(f'{serving} is no folder; --serving takes the one that `run` pushes to, ROOT/serving.')


def read_config(serving: Place) -> model_server_config_pb2.ModelConfig:
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


def write_config(serving: Place, config: model_server_config_pb2.ModelConfig) -> None:
    """Replaces models.config whole; a server that reads meanwhile sees the old one or the new one."""
    listed = model_server_config_pb2.ModelServerConfig(model_config_list={'config': [config]})
    path, text = serving / CONFIG_FILE, text_format.MessageToString(listed)
    if isinstance(path, Path):
        staging = path.with_name(f'.{CONFIG_FILE}.partial-{os.getpid()}')
        staging.write_text(text)
        staging.replace(path)
    else:  # an object appears whole
        with path.open('w', force_overwrite_to_cloud=True) as file:
            file.write(text)


def set_versions(config: model_server_config_pb2.ModelConfig, *more: int) -> None:
    """Lists the labelled versions and `more`, which is what the server loads."""
    del config.model_version_policy.specific.versions[:]
    config.model_version_policy.specific.versions.extend(sorted({*config.version_labels.values(), *more}))


@contextlib.contextmanager
def lock_config(serving: Place) -> Iterator[None]:
    """Keeps other processes from changing models.config between our reading and writing it; not in an object store.

    Raises:
      UsageError: there is no serving folder.
    """
    check_folder(serving)
    if not isinstance(serving, Path):
        yield
        return
    with (serving / '.lock').open('a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
