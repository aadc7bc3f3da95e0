"""Maps URIs of the object store to the paths where Kubeflow's launcher keeps local copies of artifacts, and back.

The launcher downloads a step's inputs to these paths before the container runs, and uploads what is there afterwards
(LocalPathForURI in backend/src/v2/component/launcher_v2.go of kubeflow/pipelines).
"""

import re
from collections.abc import Callable
from typing import Any

LOGS_KEY = 'executor-logs'
"""An output that the driver adds to every step: a file that the launcher writes."""
ROOT_VARIABLE = 'MIRROR_ROOT'
"""Environment variable: the folder that takes the place of a container's root folder. Only the rehearsal sets it."""

_FOLDERS = {'minio://': '/minio/', 's3://': '/s3/', 'gs://': '/gcs/'}
_ROOT = re.compile(rf'({"|".join(_FOLDERS)})[^/?]+(/[^?]*)?(\?.+)?')
ROOT_FORM = f'{", ".join(_FOLDERS)} and a bucket'


def is_pipeline_root(uri: str) -> bool:
    """Says whether artifacts can be stored below a URI (bucketPattern in backend/src/v2/objectstore/config.go)."""
    return _ROOT.fullmatch(uri) is not None


def to_path(uri: str, root: str) -> str:
    """Returns the path of the local copy of a URI; any other text as it is.

    Args:
      uri: such as 'minio://mlpipeline/v2/artifacts/x'.
      root: the folder that takes the place of the container's root folder; '' in a container.
    """
    for scheme, folder in _FOLDERS.items():
        if uri.startswith(scheme):
            return root + folder + uri.removeprefix(scheme)
    return uri


def to_uri(path: str, root: str) -> str:
    """Returns the URI of the path of a local copy; any other text as it is. See `to_path`."""
    for scheme, folder in _FOLDERS.items():
        if path.startswith(root + folder):
            return scheme + path.removeprefix(root + folder)
    return path


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a copy of a JSON value in which each string has been changed, except keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: map_strings(item, change) for key, item in value.items()}
    return [map_strings(item, change) for item in value] if isinstance(value, list) else value
