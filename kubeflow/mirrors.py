"""Where Kubeflow's launcher keeps local copies of artifacts: the object store's URIs and the paths beside them.

The launcher downloads a step's inputs there before its container runs, and uploads what is written there afterwards
(LocalPathForURI in backend/src/v2/component/launcher_v2.go of kubeflow/pipelines).
"""

import re
from collections.abc import Callable
from typing import Any

LOGS_KEY = 'executor-logs'  # an output that the driver adds to every step's: a file, which the launcher writes
ROOT_VARIABLE = 'MIRROR_ROOT'  # what stands for the container's root; only the rehearsal sets it

_FOLDERS = {'minio://': '/minio/', 's3://': '/s3/', 'gs://': '/gcs/'}
_ROOT = re.compile(rf'({"|".join(_FOLDERS)})[^/?]+(/[^?]*)?(\?.+)?')
ROOT_FORM = f'{", ".join(_FOLDERS)} and a bucket'


def is_pipeline_root(uri: str) -> bool:
    """Whether the launcher can keep artifacts there (bucketPattern in backend/src/v2/objectstore/config.go)."""
    return _ROOT.fullmatch(uri) is not None


def to_path(uri: str, root: str) -> str:
    """The local copy of a URI; any other text as it is.

    Args:
      uri: such as 'minio://mlpipeline/v2/artifacts/x'.
      root: '' in a container.
    """
    for scheme, folder in _FOLDERS.items():
        if uri.startswith(scheme):
            return root + folder + uri.removeprefix(scheme)
    return uri


def to_uri(path: str, root: str) -> str:
    """The URI of a local copy; any other text as it is."""
    for scheme, folder in _FOLDERS.items():
        if path.startswith(root + folder):
            return scheme + path.removeprefix(root + folder)
    return path


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every string in it changed, keys left alone."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: map_strings(item, change) for key, item in value.items()}
    return [map_strings(item, change) for item in value] if isinstance(value, list) else value
