"""ImportExampleGen: TFX's own, for data in an S3 store too.

Beam reads s3:// with boto3. But TFX looks at the files first, for its cache, through TensorFlow, which does not.
"""

from typing import NamedTuple

from tfx.components import ImportExampleGen
from tfx.dsl.io import filesystem, filesystem_registry

from components.places import locate

__all__ = ['ImportExampleGen']


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
