"""Classifies encoded images with a model of this pipeline, wherever it runs: in a server, or in this process.

`pipeline.client.connect` and `pipeline.local_model.load_model` make a Classifier.
"""

import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from components import features
from components.data import cifar10
from components.errors import PipelineError

_BATCH_BYTES = 3_000_000  # gRPC servers take messages of 4 MiB unless they are told otherwise; so base64 fits too


class Prediction(NamedTuple):
    """What a model says of an image."""

    label: int
    """Number of the most probable class, from 0."""
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


class Interface(NamedTuple):
    """What a model can be asked."""

    signatures: frozenset[str]
    """The names of its signatures."""
    image_size: int | None
    """To how many pixels it resizes the shorter side of an image, see `components.contract`; None if that is not
    known."""


class RefusedError(PipelineError):
    """A model does not take what it is asked, or the signature is not there any more."""


class Model(Protocol):
    """Something that runs the signatures of a model. `ask` may be called from several threads at a time."""

    name: str
    """How it is called in messages, such as 'localhost:8501'."""
    batch_size: int
    """How many images it is asked for at a time."""
    concurrency: int
    """How many batches are asked for at the same time, so that it never has to wait for the next one."""

    def describe(self) -> Interface:
        """Says what the model can be asked.

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

    def name_classes(self, labels: Sequence[int]) -> list[str]:
        """Returns the names of classes.

        Raises:
          RefusedError: the model does not say them, as models that were pushed before there was the signature for it,
            or does not take so many labels at a time.
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
        self._interface: Interface | None = None  # until the model was asked
        self._class_names: dict[int | None, list[str]] = {}  # by version

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

    @property
    def image_size(self) -> int | None:
        """To how many pixels the model resizes the shorter side of an image; None if that is not known.

        Raises:
          PipelineError: the model does not answer.
        """
        return self._describe().image_size

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

    def name_classes(self, prediction: Prediction) -> list[str] | None:
        """Returns the names of all classes that a prediction has probabilities of.

        They are asked for once for each version. A model that does not say them was pushed before there were others
        than CIFAR-10's. Names among which the predicted class has another name or place are not returned.

        Returns:
          A name for each probability; None if the names are not known.

        Raises:
          PipelineError: the model does not answer.
        """
        with self._lock:
            names = self._class_names.get(prediction.version)
            if names is None:
                try:
                    names = self._ask_names(range(len(prediction.probabilities)))
                except RefusedError:
                    names = list(cifar10.CONTRACT.class_names)
                self._class_names[prediction.version] = names
        are_its = len(names) == len(prediction.probabilities) and names[prediction.label] == prediction.class_name
        return names if are_its else None

    def _ask_names(self, labels: Sequence[int]) -> list[str]:
        """Asks for names in parts that the model takes at a time: a server may have a largest batch."""
        if len(labels) <= self.batch_size:
            try:
                return self._model.name_classes(labels)
            except RefusedError:
                if len(labels) == 1:
                    raise
        middle = len(labels) // 2
        return [*self._ask_names(labels[:middle]), *self._ask_names(labels[middle:])]

    def _describe(self) -> Interface:
        """Asks once what the model can be asked, also whether it answers for each image of a batch.

        So a version label that does not exist is an error, and not taken for a fault of the images.
        """
        with self._lock:
            if self._interface is None:
                self._interface = self._model.describe()
            return self._interface

    def _classify_batch(self, batch: Sequence[bytes]) -> list[Answer]:
        interface = self._describe()
        if features.SIGNATURE_SAFE in interface.signatures:
            try:
                return _read_reply(self._model.ask(features.SIGNATURE_SAFE, batch))
            except RefusedError:  # it refuses no image: an older version has taken the place of the first
                self._interface = interface._replace(signatures=interface.signatures - {features.SIGNATURE_SAFE})
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
