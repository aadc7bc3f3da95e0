"""The serving folder: numbered versions of a SavedModel, as TensorFlow Serving polls it."""

import time
from pathlib import Path


def find_newest_version(serving: Path) -> Path | None:
    """The sub-folder with the highest number that holds a SavedModel; None where there is none."""
    if not serving.is_dir():
        return None
    versions = (
        folder for folder in serving.iterdir() if folder.name.isdigit() and (folder / 'saved_model.pb').exists()
    )
    return max(versions, key=lambda folder: int(folder.name), default=None)


def choose_version(serving: Path) -> int:
    """The number of a version to push: seconds since 1970, as TFX has it, but always over every number in use."""
    numbers = [int(folder.name) for folder in serving.iterdir() if folder.name.isdigit()] if serving.is_dir() else []
    return max(int(time.time()), max(numbers, default=0) + 1)
