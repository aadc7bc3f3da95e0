"""What the server does with a request, independent of the protocol that brought it: `rest.py` and `grpc_service.py`."""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import numpy as np
import numpy.typing as npt

from pipeline.server.faults import ServiceError
from pipeline.server.metrics import Metrics
from pipeline.server.models import DEFAULT_SIGNATURE, LoadedVersion, ModelStore

Array = npt.NDArray[np.generic]


class Asked(NamedTuple):
    """A request for predictions."""

    name: str
    """Of the model."""
    signature: str
    """'' is 'serving_default'."""
    version: int | None
    """None, with no label either, is the newest version that is loaded."""
    label: str | None
    inputs: dict[str, Array]
    """By name: a batch, whose strings are an array of objects of type bytes."""
    deadline: float = float('inf')
    """Of the time.monotonic clock: an answer after it is of no use to the client."""


class Answer(NamedTuple):
    """The predictions, and who made them."""

    version: int
    signature: str
    outputs: dict[str, Array]
    """By name; strings are an array of objects of type bytes."""
    image_size: int
    """To how many pixels the version resizes the shorter side of an image."""


class Runner(Protocol):
    """Decides when a request runs and together with which others."""

    def run(
        self, version: LoadedVersion, signature: str, inputs: dict[str, Array], deadline: float
    ) -> dict[str, Array]:
        """Runs a signature on a batch, and returns its outputs.

        Raises:
          ServiceError: the model refuses the batch, there is no room for it, or the deadline has passed.
        """

    def close(self) -> None:
        """Ends the threads."""


class Service:
    """Answers requests with the versions that a store has loaded.

    Args:
      store: the versions.
      runner: runs the signatures.
      metrics: counts.
    """

    def __init__(self, store: ModelStore, runner: Runner, metrics: Metrics):
        self.store = store
        self.metrics = metrics
        self.observers: list[Callable[[Asked, Answer], None]] = []
        """Are called after each answered request; they must neither raise nor block."""
        self._runner = runner

    def predict(self, asked: Asked) -> Answer:
        """Runs a signature of the version that was asked for.

        Raises:
          ServiceError: with the code that TensorFlow Serving answers with.
        """
        with self.store.lease(asked.name, asked.version, asked.label) as version:
            return self.predict_with(version, asked)

    def predict_with(self, version: LoadedVersion, asked: Asked) -> Answer:
        """Runs a signature of a version that the caller has leased, whatever version is asked for.

        Raises:
          ServiceError: with the code that TensorFlow Serving answers with.
        """
        name = asked.signature or DEFAULT_SIGNATURE
        if name not in version.signatures:
            raise ServiceError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        version.check_inputs(name, asked.inputs)
        began = time.perf_counter()
        outputs = self._runner.run(version, name, asked.inputs, asked.deadline)
        microseconds = (time.perf_counter() - began) * 1e6
        self.metrics.runtime_latency.labels(version.name, 'Predict', 'TF2').observe(microseconds)
        answer = Answer(version.number, name, outputs, version.contract.image_size)
        for observe in self.observers:
            observe(asked, answer)
        return answer
