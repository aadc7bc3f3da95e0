"""Reads the files that TensorFlow Serving is configured with: models.config, batching.config and monitoring.config.

tensorflow-serving-api has the message of the first one only. The fields of the other two are declared here as in
TensorFlow Serving's session_bundle_config.proto and monitoring_config.proto, so that protobuf itself reads the files.
"""

from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from components.errors import UsageError

DEFAULT_METRICS_PATH = '/monitoring/prometheus/metrics'

_PACKAGE = 'tensorflow.serving'
_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64, _STRING, _BOOL = ('google.protobuf.Int64Value', 'google.protobuf.StringValue', 'google.protobuf.BoolValue')

# Name, number and type of each field; a type with a dot is a message.
_MESSAGES: dict[str, tuple[tuple[str, int, str | int], ...]] = {
    'BatchingParameters': (
        ('max_batch_size', 1, _INT64),
        ('batch_timeout_micros', 2, _INT64),
        ('max_enqueued_batches', 3, _INT64),
        ('num_batch_threads', 4, _INT64),
        ('thread_pool_name', 5, _STRING),
        ('allowed_batch_sizes', 6, _FIELD.TYPE_INT64),
        ('pad_variable_length_inputs', 7, _FIELD.TYPE_BOOL),
        ('enable_large_batch_splitting', 8, _BOOL),
        ('max_execution_batch_size', 9, _INT64),
    ),
    'PrometheusConfig': (('enable', 1, _FIELD.TYPE_BOOL), ('path', 2, _FIELD.TYPE_STRING)),
    'MonitoringConfig': (('prometheus_config', 1, f'{_PACKAGE}.PrometheusConfig'),),
}


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


def _declare_messages() -> dict[str, type[message.Message]]:
    """Makes the classes of _MESSAGES."""
    file = descriptor_pb2.FileDescriptorProto(name='server_configs.proto', package=_PACKAGE, syntax='proto3')
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, number, kind in fields:
            label = _FIELD.LABEL_REPEATED if field == 'allowed_batch_sizes' else _FIELD.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f'.{kind}'
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()  # of its own, because another package may bring the real messages
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{_PACKAGE}.{name}')) for name in _MESSAGES
    }


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
    asked = _read(path, _declare_messages()['BatchingParameters']())
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
    prometheus = _read(path, _declare_messages()['MonitoringConfig']()).prometheus_config
    return (prometheus.path or DEFAULT_METRICS_PATH) if prometheus.enable else None
