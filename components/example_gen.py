"""ImportExampleGen: TFX's own, which says what is wrong with a data folder, and takes one in an S3 store too.

Beam reads s3:// with boto3, and tries for minutes where it must not. TFX looks at the files before that, for its cache,
through TensorFlow, which does not read s3:// at all.
"""

from typing import Any, NamedTuple

from tfx import components, types
from tfx.components.example_gen.import_example_gen import executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import filesystem, filesystem_registry
from tfx.types import standard_component_specs

from components.manifest import check_splits
from components.places import locate


class _Stat(NamedTuple):
    """What TFX's fingerprint is made of, by TensorFlow's names: bytes, and nanoseconds since 1970."""

    length: int
    mtime_nsec: int


class S3Filesystem(filesystem.Filesystem):
    """The two of TFX's file operations that its driver of ExampleGen needs; it writes nothing there."""

    SUPPORTED_SCHEMES = ['s3://']  # noqa: RUF012  (the base class declares it so)

    @staticmethod
    def glob(pattern: str) -> list[str]:
        """The files of a folder whose names match the last part of `pattern`."""
        folder, _, names = pattern.rpartition('/')
        return sorted(str(file) for file in locate(folder).glob(names))

    @staticmethod
    def stat(path: str) -> _Stat:
        """Size, and time of the last change."""
        stat = locate(path).stat()
        return _Stat(stat.st_size, int(stat.st_mtime * 1e9))


filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(S3Filesystem, priority=-1)  # before TensorFlow's


class Executor(executor.Executor):
    """Checks the data folder before Beam reads it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See the stock executor, and `check_splits` for the errors."""
        check_splits(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        super().Do(input_dict, output_dict, exec_properties)


class ImportExampleGen(components.ImportExampleGen):
    """TFX's ImportExampleGen with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
