"""Classifies encoded images with a model of this pipeline, wherever it runs: in a server, or in this process.

`pipeline.client.connect` and `pipeline.local_model.load_model` make a Classifier.
"""

import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from components import features
from components.errors import PipelineError

_BATCH_BYTES = 3_000_000  # gRPC servers take messages of 4 MiB unless they are told otherwise; so base64 fits too


class Prediction(NamedTuple):
    """What a model says of an image."""

    label: int
    """Index of the most probable class in features.CLASS_NAMES."""
    class_name: str
    """Its name."""
    probabilities: list[float]
    """One for each class, which sum to 1."""
    version: int | None
    """The version of the model that has answered; None if that is not known."""


class Refusal(NamedTuple):
    """Says that an image was not classified."""

    reason: str
    """What follows the image's name in a sentence; the full stop may be missing."""


Answer = Prediction | Refusal


class Reply(NamedTuple):
    """What a signature returns for a batch of N images."""

    version: int | None
    """The version of the model; None if that is not known."""
    outputs: dict[str, list[Any]]
    """A list of N for each output: numbers, texts, or lists of numbers."""


class RefusedError(PipelineError):
    """A model does not take the images of a batch, or the signature is not there any more."""


class Model(Protocol):
    """Something that runs the signatures of a model. `ask` may be called from several threads at a time."""

    name: str
    """How it is called in messages, such as 'localhost:8501'."""
    batch_size: int
    """How many images it is asked for at a time."""
    concurrency: int
    """How many batches are asked for at the same time, so that it never has to wait for the next one."""

    def list_signatures(self) -> set[str]:
        """Returns the names of the signatures.

        Raises:
          PipelineError: there is no answer, or no such model, version or version label.
        """

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        """Runs a signature on encoded images.

        Raises:
          RefusedError: the model has no such signature, or one of the images cannot be decoded. The message is what
            follows the name of a single image in a sentence.
          PipelineError: there is no answer.
        """

    def close(self) -> None:
        """Gives back what it holds."""


def _cut_batches(images: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Cuts images into batches of at most `size` images and _BATCH_BYTES bytes; a larger image is one of its own."""
    begin = total = 0
    for index, image in enumerate(images):
        total += len(image)
        if index > begin and (index - begin == size or total > _BATCH_BYTES):
            yield images[begin:index]
            begin, total = index, len(image)
    if images:
        yield images[begin:]


class Classifier:
    """Classifies any number of images, of which some may be broken. It may be used by several threads at a time.

    Args:
      model: runs the signatures.
    """

    def __init__(self, model: Model):
        self._model = model
        self._lock = threading.Lock()
        self._has_safe: bool | None = None  # until the model was asked

    def __enter__(self) -> 'Classifier':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """How the model is called in messages: the address of a server, or a folder."""
        return self._model.name

    @property
    def batch_size(self) -> int:
        """The number of images with which the model is fastest."""
        return self._model.batch_size

    @property
    def concurrency(self) -> int:
        """How many threads keep the model busy."""
        return self._model.concurrency

    def close(self) -> None:
        """Closes the connections."""
        self._model.close()

    def classify(self, images: Sequence[bytes]) -> list[Answer]:
        """Classifies images, in batches.

        Args:
          images: files as they are, of any size.

        Returns:
          An answer for each image, in their order. Of a broken image it says why there is none.

        Raises:
          PipelineError: the model does not answer.
        """
        answers: list[Answer] = []
        for batch in _cut_batches(images, self.batch_size):
            answers += self._classify_batch(batch)
        return answers

    def _find_safe(self) -> bool:
        """Asks once whether the model has the signature that answers for each image of a batch.

        So a version label that does not exist is an error, and not taken for a fault of the images.
        """
        with self._lock:
            if self._has_safe is None:
                self._has_safe = features.SIGNATURE_SAFE in self._model.list_signatures()
            return self._has_safe

    def _classify_batch(self, batch: Sequence[bytes]) -> list[Answer]:
        if self._find_safe():
            try:
                return _read_reply(self._model.ask(features.SIGNATURE_SAFE, batch))
            except RefusedError:  # it refuses no image: an older version has taken the place of the first
                self._has_safe = False
        try:
            return _read_reply(self._model.ask(features.SIGNATURE_SERVING_DEFAULT, batch))
        except RefusedError as error:
            if len(batch) == 1:
                return [Refusal(str(error))]
        # An image has spoilt the batch, or the batch is larger than the server's largest.
        middle = len(batch) // 2
        return [*self._classify_batch(batch[:middle]), *self._classify_batch(batch[middle:])]


def _read_reply(reply: Reply) -> list[Answer]:
    names = (features.OUTPUT_LABEL, features.OUTPUT_CLASS_NAME, features.OUTPUT_PROBABILITIES)
    columns = [reply.outputs[name] for name in names]
    errors = reply.outputs.get(features.OUTPUT_ERROR) or [''] * len(columns[0])
    return [
        Refusal(f'cannot be classified: {error}')
        if error
        else Prediction(label, class_name, probabilities, reply.version)
        for error, label, class_name, probabilities in zip(errors, *columns, strict=True)
    ]
