"""The data contract of one data set: its class names in the order of the labels, and the size of its images.

The manifest of a data folder says it (`components.data`), CuratedSchemaGen writes it into the schema, and from there
Transform, the Trainer and the data gate read it. The Trainer writes it into the SavedModel, from where everything that
comes after the training reads it (`components.model_contract`). CIFAR-10's is `components.data.cifar10.CONTRACT`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

CONTRACT_FILE = Path('assets.extra') / 'contract.json'  # in a SavedModel; model servers do not read that folder
CHANNELS = 3  # of every image: red, green, blue
_NAMED = 10  # class names that a description lists


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
        names = ', '.join(self.class_names[:_NAMED]) + (', ...' if self.num_classes > _NAMED else '')
        return f'{self.num_classes:,} classes ({names}) at {self.image_size} pixels'

    def is_like(self, other: 'DataContract') -> bool:
        """Whether models of both can be compared: they have the same classes in the same order, and the same size."""
        return self.class_names == other.class_names and self.image_size == other.image_size

    def to_dict(self) -> dict[str, Any]:
        """Returns what `parse_contract` takes, as JSON can hold it."""
        return {**self._asdict(), 'class_names': list(self.class_names)}


def parse_contract(content: dict[str, Any]) -> DataContract:
    """Makes a contract from what `DataContract.to_dict` returned."""
    return DataContract(tuple(content['class_names']), int(content['image_size']), bool(content['is_square']))


def write_model_contract(saved_model: Path, contract: DataContract) -> None:
    """Writes the contract into a SavedModel's folder."""
    path = saved_model / CONTRACT_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contract.to_dict(), indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
