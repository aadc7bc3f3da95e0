"""Reads the files that TensorFlow Serving is configured with: models.config, batching.config and monitoring.config."""

from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import UsageError
from components.serving.server_files import METRICS_PATH, make_message


class Batching(NamedTuple):
    """How requests are put together; the defaults are TensorFlow Serving's."""

    max_batch_size: int = 1000
    """Rows of the largest request."""
    max_execution_batch_size: int = 1000
    """Rows of the largest batch; larger requests are split."""
    batch_timeout_s: float = 0.0
    """Seconds that a request waits for others, at most, while a thread is free."""
    max_enqueued_batches: int = 10
    """Batches that may wait for each signature of each version."""
    num_batch_threads: int | None = None
    """Batches that run at the same time; None is one for each core."""
    allowed_batch_sizes: tuple[int, ...] = ()
    """Sizes to which batches are filled up, ascending; () runs every size as it is."""


def _read(path: Path, empty: Any) -> Any:
    try:
        return text_format.Parse(path.read_text(), empty)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UsageError(
            f'{path} cannot be read as a {type(empty).DESCRIPTOR.name} of TensorFlow Serving ({error}); correct it.'
        ) from error


def read_models(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """Reads models.config, with any number of models.

    Raises:
      UsageError: the file is missing or damaged.
    """
    config: model_server_config_pb2.ModelServerConfig = _read(path, model_server_config_pb2.ModelServerConfig())
    return config


def read_batching(path: Path) -> Batching:
    """Reads batching.config.

    Raises:
      UsageError: the file is missing or damaged, its sizes contradict each other, or it asks for what this server
        cannot do.
    """
    asked = _read(path, make_message('BatchingParameters'))
    if asked.pad_variable_length_inputs:
        raise UsageError(f'{path}: pad_variable_length_inputs is of TensorFlow Serving only; leave it out.')
    present = {name.name for name, _ in asked.ListFields()}
    default = Batching()
    largest = asked.max_batch_size.value if 'max_batch_size' in present else default.max_batch_size
    does_split = asked.enable_large_batch_splitting.value and 'max_execution_batch_size' in present
    batching = Batching(
        max_batch_size=largest,
        max_execution_batch_size=asked.max_execution_batch_size.value if does_split else largest,
        batch_timeout_s=asked.batch_timeout_micros.value / 1e6,
        max_enqueued_batches=(
            asked.max_enqueued_batches.value if 'max_enqueued_batches' in present else default.max_enqueued_batches
        ),
        num_batch_threads=asked.num_batch_threads.value if 'num_batch_threads' in present else None,
        allowed_batch_sizes=tuple(asked.allowed_batch_sizes),
    )
    _check_batching(path, batching)
    return batching


def _check_batching(path: Path, batching: Batching) -> None:
    sizes = batching.allowed_batch_sizes
    if list(sizes) != sorted(set(sizes)) or (sizes and sizes[0] < 1):
        raise UsageError(f'{path}: allowed_batch_sizes must be positive and ascending. Received: {list(sizes)}')
    if sizes and sizes[-1] != batching.max_batch_size:
        raise UsageError(
            f'{path}: the last of allowed_batch_sizes must be max_batch_size. Received: {sizes[-1]} and '
            f'{batching.max_batch_size}'
        )
    least = min(batching.max_batch_size, batching.max_execution_batch_size, batching.max_enqueued_batches)
    if least < 1 or batching.num_batch_threads == 0 or batching.batch_timeout_s < 0:
        raise UsageError(f'{path}: sizes, threads and queued batches must be at least 1, and the timeout not negative.')


def read_metrics_path(path: Path) -> str | None:
    """Reads monitoring.config, and returns the path of the metrics; None if it does not turn them on.

    Raises:
      UsageError: the file is missing or damaged.
    """
    prometheus = _read(path, make_message('MonitoringConfig')).prometheus_config
    return (prometheus.path or METRICS_PATH) if prometheus.enable else None
