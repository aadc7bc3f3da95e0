"""Reads the data contract that a model was trained with, for all that asks a SavedModel or describes its answers."""

import json

from components.contract import CONTRACT_FILE, DataContract, parse_contract
from components.data import cifar10
from components.places import Place


def read_model_contract(saved_model: Place) -> DataContract:
    """Reads the class names and the image size of a SavedModel, a version or the Trainer's.

    Args:
      saved_model: path or URI of its folder.

    Returns:
      The contract that the Trainer wrote into it. A SavedModel without one is CIFAR-10's, because it was made before
      there were others.
    """
    path = saved_model / CONTRACT_FILE
    return parse_contract(json.loads(path.read_text(encoding='utf-8'))) if path.exists() else cifar10.CONTRACT
