"""Source digests: what keeps TFX from reusing results of code that has since been edited.

User code named by dotted path is not in TFX's cache key; its digest goes into `custom_config` instead.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def compute_source_digest(files: Iterable[Path]) -> str:
    """SHA-256 over the names and the bytes of source files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        digest.update(f'{file.name}:{file.stat().st_size}:'.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
