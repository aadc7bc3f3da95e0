"""Whether the serving version can be compared with a model of a run: it must have the same classes and image size.

DataCheck, BaselineFinder and the Pusher ask this. A client of a serving folder expects one list of classes from all
versions, so a model of others does not belong beside it, unless somebody says so.
"""

from typing import Literal, NamedTuple

from components.contract import DataContract
from components.model_contract import read_model_contract
from components.places import Place
from components.serving.versions import find_serving_version

ServingClasses = Literal['same', 'any']
"""Whether a model may be pushed beside a serving version that is unlike it: 'same' refuses that, 'any' does not."""

HOW_TO_PUSH = 'give another folder with --set serving=DIR, or push there anyway with --set serving_classes=any'


class UnlikeVersion(NamedTuple):
    """The serving version, if it has other classes, another order of them, or another image size."""

    number: int
    """Name of the version's folder."""
    contract: DataContract
    """Its classes and image size."""

    def describe_difference(self, contract: DataContract) -> str:
        """Says what differs from the contract of a run: 'other classes: 2 classes (cow, dog) at 256 pixels'."""
        what = 'the same classes in another order'
        if set(self.contract.class_names) != set(contract.class_names):
            what = 'other classes'
        elif self.contract.class_names == contract.class_names:
            what = 'another image size'
        return f'{what}: {self.contract.describe()}'


def find_unlike_version(serving: Place, contract: DataContract) -> UnlikeVersion | None:
    """Returns the serving version if it is unlike the contract of a run; None if it is like it, or nothing is serving.

    Args:
      serving: the folder of versions.
      contract: of the run's data, or of its model.

    Raises:
      PipelineError: models.config is damaged.
    """
    version = find_serving_version(serving)
    if version is None:
        return None
    found = read_model_contract(version)
    return None if found.is_like(contract) else UnlikeVersion(int(version.name), found)
