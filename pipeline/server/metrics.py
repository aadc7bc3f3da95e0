"""What Prometheus can read, under the names that TensorFlow Serving gives its metrics."""

import threading
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_PREFIX = ':tensorflow:serving:'
_LATENCY_BUCKETS = tuple(10 * 1.8**power for power in range(33))  # microseconds, as TensorFlow Serving's
_QUEUE_BUCKETS = tuple(100 * 1.2**power for power in range(52))
_SIZE_BUCKETS = tuple(2**power for power in range(15))


class _Counts(Collector):
    """A count by labels. prometheus_client's own Counter would add '_total' to TensorFlow Serving's name."""

    def __init__(self, registry: CollectorRegistry, name: str, documentation: str, labels: tuple[str, ...]):
        self._name, self._documentation, self._labels = name, documentation, labels
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def add(self, *values: str) -> None:
        """Counts one, for the values of the labels."""
        with self._lock:
            self._values[values] = self._values.get(values, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Gives the count to prometheus_client."""
        metric = Metric(self._name, self._documentation, 'unknown')
        with self._lock:
            counts = list(self._values.items())
        for values, count in counts:
            metric.add_sample(self._name, dict(zip(self._labels, values, strict=True)), count)
        yield metric


class Metrics:
    """The server's metrics; each one is thread-safe. Times are in microseconds, as TensorFlow Serving's are."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.request_count = _Counts(
            self._registry, f'{_PREFIX}request_count', 'The total number of requests.', ('model_name', 'status')
        )
        self.request_latency = self._add_histogram(
            'request_latency',
            'Wall time of an answered request.',
            ('model_name', 'API', 'entrypoint'),
            _LATENCY_BUCKETS,
        )
        self.runtime_latency = self._add_histogram(
            'runtime_latency', 'Wall time in TensorFlow.', ('model_name', 'API', 'runtime'), _LATENCY_BUCKETS
        )
        self.queuing_latency = self._add_histogram(
            'batching_session:queuing_latency',
            'Wall time that a request waits for its batch.',
            ('thread_pool_name',),
            _QUEUE_BUCKETS,
        )
        self.batch_size = self._add_histogram(
            'batching_session:processed_batch_size',
            'Rows of a batch, before it is filled up to an allowed size.',
            ('model_name', 'signature_name'),
            _SIZE_BUCKETS,
        )
        self.warmup_latency = self._add_histogram(
            'model_warmup_latency', 'Wall time of a warm-up.', ('model_path', 'status'), _LATENCY_BUCKETS
        )

    def _add_histogram(
        self, name: str, documentation: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(_PREFIX + name, documentation, labels, buckets=buckets, registry=self._registry)

    def render(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
