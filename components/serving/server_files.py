"""The files that a model server is started with: models.config, batching.config and monitoring.config.

tensorflow-serving-api has the message of models.config only. Those of the other two are declared here with the fields
of TensorFlow Serving's session_bundle_config.proto and monitoring_config.proto (2.20), so that protobuf refuses a file
that the server would refuse.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from components.places import Place
from components.serving.models_config import CONFIG_FILE, MODEL_NAME, read_config
from components.serving_check.config import ServingCheckConfig
from components.staging import write_text

BATCHING_FILE = 'batching.config'
MONITORING_FILE = 'monitoring.config'
METRICS_PATH = '/monitoring/prometheus/metrics'
MODELS_POLL_S = 5  # how often a server reads models.config

_LEAST_GAIN = 1.1  # a batch size is worth it if it answers this many times as many images a second
_WAIT_SHARE = 0.1  # of a single image's latency: how much longer a request may wait for others
_UNMEASURED_WAIT_MS = 1.0  # the low end of what TensorFlow Serving's guide to batching tries on CPUs
_QUEUE_S = 10.0  # how long the batches of a full queue take; REST waits for 30 s
_UNMEASURED_QUEUE = 100  # batches
_LARGEST_REQUEST = 1000  # images; TensorFlow Serving's own default. Larger requests are refused

_PACKAGE = 'tensorflow.serving'
_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64, _STRING, _BOOL = (f'.google.protobuf.{name}Value' for name in ('Int64', 'String', 'Bool'))

# Name, number and type of each field; a type that is a text is a message.
_MESSAGES: dict[str, tuple[tuple[str, int, Any], ...]] = {
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
    'MonitoringConfig': (('prometheus_config', 1, f'.{_PACKAGE}.PrometheusConfig'),),
}


@functools.cache
def _declare_messages() -> descriptor_pool.DescriptorPool:
    """Declares _MESSAGES in a pool of its own, because another package may bring the real ones."""
    file = descriptor_pb2.FileDescriptorProto(name='server_files.proto', package=_PACKAGE, syntax='proto3')
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field, number, kind in fields:
            label = _FIELD.LABEL_REPEATED if field == 'allowed_batch_sizes' else _FIELD.LABEL_OPTIONAL
            added = declared.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def make_message(name: str) -> Any:
    """Makes an empty message that tensorflow-serving-api does not have.

    Args:
      name: 'BatchingParameters' or 'MonitoringConfig'.
    """
    return message_factory.GetMessageClass(_declare_messages().FindMessageTypeByName(f'{_PACKAGE}.{name}'))()


class Batching(NamedTuple):
    """How a server puts requests together."""

    sizes: tuple[int, ...]
    """Images in a batch, ascending; a batch of another size is filled up to the next one."""
    wait_ms: float
    """How long a request waits for others while the processor is free."""
    queue: int
    """Batches that may wait."""
    threads: int
    """Batches that run at the same time."""
    is_measured: bool
    """Whether the first three come from a version's latencies, and not from the defaults."""

    def to_sentence(self) -> str:
        """Says it in words, such as 'batches of 1, 2 or 4 images, ...'."""
        *first, last = self.sizes
        sizes = f'{", ".join(map(str, first))} or {last}' if first else str(last)
        why = 'as its serving check measured' if self.is_measured else 'the default, as it keeps no measured latencies'
        return f'batches of {sizes} images ({why})'


def choose_batching(batch_ms: Mapping[str, float], cores: int) -> Batching:
    """Chooses how requests are put together from the latencies of a version.

    From the smallest size on, a size counts if it answers a tenth more images a second than the last one that counted;
    the last of them is the largest batch. All smaller sizes that were measured are allowed too: a batch of another
    size is filled up with images that nobody asked for, and the computer spends the same time on them. A request that
    finds the processor free waits for others for a tenth of what it takes itself.

    Args:
      batch_ms: milliseconds of a request by its number of images, see `components.serving_check.report`; empty if
        they were not measured.
      cores: number of cores of the server.
    """
    milliseconds = {int(size): value for size, value in batch_ms.items()}
    sizes = tuple(sorted(milliseconds))
    if not sizes or sizes[0] != 1:
        sizes = ServingCheckConfig().batch_sizes
        return Batching(sizes, _UNMEASURED_WAIT_MS, _UNMEASURED_QUEUE, cores, is_measured=False)
    largest = sizes[0]
    for size in sizes:
        if size / milliseconds[size] >= _LEAST_GAIN * largest / milliseconds[largest]:
            largest = size
    return Batching(
        sizes=tuple(size for size in sizes if size <= largest),
        wait_ms=milliseconds[1] * _WAIT_SHARE,
        queue=max(cores, round(_QUEUE_S * 1000 / milliseconds[largest])),
        threads=cores,
        is_measured=True,
    )


def make_batching(batching: Batching) -> Any:
    """Makes the BatchingParameters of batching.config.

    Without splitting, a server refuses requests with more images than a batch has. With it, the last of the allowed
    sizes must still be the size of the largest request, although no batch is ever that large.
    """
    parameters = make_message('BatchingParameters')
    parameters.max_batch_size.value = _LARGEST_REQUEST
    parameters.enable_large_batch_splitting.value = True
    parameters.max_execution_batch_size.value = batching.sizes[-1]
    parameters.allowed_batch_sizes.extend([*batching.sizes, _LARGEST_REQUEST])
    parameters.batch_timeout_micros.value = round(batching.wait_ms * 1000)
    parameters.max_enqueued_batches.value = batching.queue
    parameters.num_batch_threads.value = batching.threads
    return parameters


def make_models(serving: Place, base_path: str) -> model_server_config_pb2.ModelServerConfig:
    """Makes models.config for a server: what the serving folder's own says, or without one, the newest version.

    Args:
      serving: the folder of versions.
      base_path: where the server sees that folder; the file in the folder may name a different place.

    Raises:
      PipelineError: the serving folder's own file is damaged.
    """
    config = read_config(serving)
    config.name, config.base_path = config.name or MODEL_NAME, base_path
    config.model_platform = config.model_platform or 'tensorflow'
    return model_server_config_pb2.ModelServerConfig(model_config_list={'config': [config]})


def make_monitoring() -> Any:
    """Makes the MonitoringConfig of monitoring.config: Prometheus reads METRICS_PATH of the REST port."""
    monitoring = make_message('MonitoringConfig')
    monitoring.prometheus_config.enable, monitoring.prometheus_config.path = True, METRICS_PATH
    return monitoring


def write_models(folder: Path, serving: Path) -> bool:
    """Writes CONFIG_FILE for a server that sees `serving` under the same path, if it would say something new.

    Returns:
      Whether it was written.

    Raises:
      PipelineError: see `make_models`; the file is left as it is.
    """
    file = folder / CONFIG_FILE
    text = text_format.MessageToString(make_models(serving, str(serving.absolute())))
    is_new = not file.exists() or file.read_text() != text
    if is_new:
        write_text(file, text)
    return is_new


def write_files(folder: Path, serving: Path, batching: Batching) -> list[str]:
    """Writes the three files, and returns the flags with which a server reads them.

    Args:
      folder: where to write; exists.
      serving: the folder of versions.
      batching: from `choose_batching`.

    Raises:
      PipelineError: see `make_models`.
    """
    write_models(folder, serving)
    write_text(folder / BATCHING_FILE, text_format.MessageToString(make_batching(batching)))
    write_text(folder / MONITORING_FILE, text_format.MessageToString(make_monitoring()))
    return [
        f'--model_config_file={folder / CONFIG_FILE}',
        f'--model_config_file_poll_wait_seconds={MODELS_POLL_S}',
        '--allow_version_labels_for_unavailable_models',
        '--enable_batching',
        f'--batching_parameters_file={folder / BATCHING_FILE}',
        f'--monitoring_config_file={folder / MONITORING_FILE}',
    ]
