"""The data contract of one data set: its class names in the order of the labels, and the size of its images.

The manifest of a data folder says it (`components.data`), CuratedSchemaGen writes it into the schema, and from there
Transform, the Trainer and the data gate read it. The Trainer writes it into the SavedModel, from where everything that
comes after the training reads it (`components.model_contract`). CIFAR-10's is `components.data.cifar10.CONTRACT`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import UsageError, to_one_line

CONTRACT_FILE = Path('assets.extra') / 'contract.json'  # in a SavedModel; model servers do not read that folder
KERAS_MODEL_FILE = Path('assets.extra') / 'model.keras'  # in a SavedModel: the network as Keras trained it
BASE_MODEL_FILE = 'base_model.json'  # in BaseModelFinder's artifact: the number of the version that it holds
WARM_START_SERVING = 'serving'  # the value of trainer.warm_start that stands for the serving version
CHANNELS = 3  # of every image: red, green, blue
_NAMED = 8  # class names that a description lists
_LEAST_CLASSES = 2


class DataContract(NamedTuple):
    """What the labels and the images of a data set are."""

    class_names: tuple[str, ...]
    """The class of each label: a label is an index into this."""
    image_size: int
    """Length in pixels of the shorter side of every stored image. Every image is resized to it first, in training,
    evaluation and serving; it is also the height and width that the signature `serving_raw` takes."""
    is_square: bool
    """Whether every stored image is exactly image_size x image_size; else the longer side may have any length."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a raw image, uint8, as the signature `serving_raw` takes it."""
        return self.image_size, self.image_size, CHANNELS

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def describe(self) -> str:
        """Says in a few words what the contract is: '3 classes (cat, cow, dog) at 256 pixels'."""
        return f'{self.num_classes:,} classes ({self.list_names()}) at {self.image_size} pixels'

    def list_names(self) -> str:
        """Lists the first class names: 'cat, cow, dog'."""
        return ', '.join(self.class_names[:_NAMED]) + (', ...' if self.num_classes > _NAMED else '')

    def is_like(self, other: 'DataContract') -> bool:
        """Whether models of both can be compared: they have the same classes in the same order, and the same size."""
        return self.class_names == other.class_names and self.image_size == other.image_size

    def to_json(self) -> str:
        """Returns the text of CONTRACT_FILE: what `to_dict` returns, as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + '\n'

    def to_dict(self) -> dict[str, Any]:
        """Returns what `parse_contract` takes, as JSON can hold it."""
        return {**self._asdict(), 'class_names': list(self.class_names)}


def read_class_names(file: Path) -> tuple[str, ...]:
    """Reads a text file with one class name on each line, in the order of the labels.

    Raises:
      UsageError: the file cannot be read, has fewer than two names, or has one of them twice.
    """
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'{file} cannot be read: {to_one_line(error)}; give a text file with class names.') from error
    names = [line.strip() for line in lines if line.strip()]
    doubled = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if doubled:
        raise UsageError(f'{file} has the class name {doubled!r} twice; every line must name another class.')
    if len(names) < _LEAST_CLASSES:
        raise UsageError(
            f'{file} has {len(names)} class names; at least {_LEAST_CLASSES} are needed, one on each line.'
        )
    return tuple(names)


def parse_contract(content: dict[str, Any]) -> DataContract:
    """Makes a contract from what `DataContract.to_dict` returned."""
    return DataContract(tuple(content['class_names']), int(content['image_size']), bool(content['is_square']))
