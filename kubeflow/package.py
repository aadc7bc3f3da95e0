"""A compiled package, read: the PipelineSpec and the kubernetes platform document beside it."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.errors import UsageError

Document = dict[str, Any]


class Package(NamedTuple):
    """The two documents of a package.

    spec: the PipelineSpec.
    executors: the platform's configuration by executor label; empty where there is no second document.
    """

    spec: Document
    executors: dict[str, Document]

    def get_container(self, component: str) -> Document | None:
        """The container of a component; None for one that runs none."""
        label = self.spec['components'][component].get('executorLabel')
        return self.spec['deploymentSpec']['executors'].get(label, {}).get('container')

    def list_mount_paths(self) -> list[str]:
        """Where volumes are mounted in containers, the deepest first."""
        mounts = [mount for executor in self.executors.values() for mount in executor.get('pvcMount', [])]
        return sorted({mount['mountPath'] for mount in mounts}, key=len, reverse=True)


def read_package(path: Path) -> Package:
    """Reads what `compile` wrote.

    Raises:
      UsageError: the file cannot be read, or is no package.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}.') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f'{path} is not YAML ({" ".join(str(error).split())[:200]}).') from error
    if not documents or not isinstance(documents[0], dict) or 'root' not in documents[0]:
        raise UsageError(f'{path} is no pipeline package; `python -m pipeline compile` writes one.')
    platform = documents[1] if len(documents) > 1 else {}
    kubernetes = platform.get('platforms', {}).get('kubernetes', {})
    return Package(documents[0], kubernetes.get('deploymentSpec', {}).get('executors', {}))
