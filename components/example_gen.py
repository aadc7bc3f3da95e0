"""ImportExampleGen: TFX's own, with clear errors for data that cannot be read, and with data in S3 stores.

Beam reads s3:// with boto3, but retries for minutes even when access is refused, so the executor checks the folder
first. Before that, TFX's driver lists the files for the cache key. It would do so through TensorFlow, which cannot read
s3:// at all, so S3Filesystem does it instead.
"""

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tfx import components
from tfx.components.example_gen.import_example_gen import executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import filesystem, filesystem_registry
from tfx.types import artifact_utils, standard_component_specs

from components import features
from components.artifacts import Artifacts, Properties
from components.data.manifest import MANIFEST_NAME, check_splits, check_written
from components.errors import DataRefusedError
from components.places import fetch, locate

_EXAMPLES_KEY = standard_component_specs.EXAMPLES_KEY


class _Stat(NamedTuple):
    """What TFX computes a file's fingerprint from, with TensorFlow's names: bytes, and nanoseconds since 1970."""

    length: int
    mtime_nsec: int


class S3Filesystem(filesystem.Filesystem):
    """The two file operations that ExampleGen's driver needs; nothing is written through it."""

    SUPPORTED_SCHEMES = ['s3://']  # noqa: RUF012  (the base class declares it as a list)

    @staticmethod
    def glob(pattern: str) -> list[str]:
        """Lists the files of a folder whose names match the last part of `pattern`."""
        folder, _, names = pattern.rpartition('/')
        return sorted(str(file) for file in locate(folder).glob(names))

    @staticmethod
    def stat(path: str) -> _Stat:
        """Returns a file's size and the time of its last change."""
        stat = locate(path).stat()
        return _Stat(stat.st_size, int(stat.st_mtime * 1e9))


filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(S3Filesystem, priority=-1)  # preferred to TensorFlow's


def check_readable(data: str) -> None:
    """Reads every TFRecord file of a data folder to its end, to find the file that made an import fail.

    Args:
      data: path or URI of a folder with a folder for each split.

    Raises:
      DataRefusedError: a file is corrupted or cut short; the message names the file, the split and the record.
    """
    with fetch(locate(data)) as folder:
        for file in sorted(file for split in features.SPLITS for file in folder.glob(f'{split}/*')):
            count = 0
            try:
                for _ in tf.data.TFRecordDataset(str(file), 'GZIP' if file.suffix == '.gz' else ''):
                    count += 1
            except tf.errors.OpError as error:
                split, name = file.relative_to(folder).parts
                raise DataRefusedError(
                    f'The data was refused, and nothing was trained: {split}: {data}/{split}/{name} is corrupted or '
                    f'cut short, and cannot be read past record {count:,}; put an undamaged copy in its place, or '
                    f'remove {data} and write the data again.'
                ) from error


class Executor(executor.Executor):
    """Checks the data folder before Beam reads it, and the files when Beam fails to."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """See the stock executor, and `check_splits`, `check_readable` and `check_written` for the errors."""
        data = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        check_splits(data)
        try:
            super().Do(input_dict, output_dict, exec_properties)
        except Exception:
            check_readable(data)
            raise
        for split in features.SPLITS:
            check_written(Path(artifact_utils.get_split_uri(output_dict[_EXAMPLES_KEY], split)))
        manifest = locate(data) / MANIFEST_NAME
        if manifest.exists():  # the run keeps it, in case the folder is written again
            Path(artifact_utils.get_single_uri(output_dict[_EXAMPLES_KEY]), MANIFEST_NAME).write_bytes(
                manifest.read_bytes()
            )


class ImportExampleGen(components.ImportExampleGen):
    """TFX's ImportExampleGen with the executor of this module."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
