"""The source digest of a component: it keeps TFX from reusing a result that older code of ours has made.

TFX's cache key holds a component's inputs, its execution properties and the names of its classes and functions, but not
their code. So `add_source_digests` gives every component that runs code of ours one more execution property: a digest
of that code. A component's code is its own file, or its own folder with everything in it, and all files of ours that
these import, directly or not.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfx.dsl.components.base import base_component

DIGEST_KEY = 'source_digest'
_ROOT = Path(__file__).parents[1]  # the folder that holds our packages, in a checkout and where they are installed
_PACKAGES = ('components', 'trainer')  # all that a step runs of ours
_FUNCTION_KEYS = (
    'preprocessing_fn',
    'run_fn',
    'tuner_fn',
)  # the properties by which TFX's own components are told our functions


def _list_imports(file: Path) -> Iterator[str]:
    """Dotted names that a file imports at any depth; of `from a import b` both 'a' and 'a.b', which may be a module."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _find_module(name: str, root: Path) -> Iterator[Path]:
    """The files that Python runs to import a module of ours, its packages' included; none for any other name."""
    parts = name.split('.')
    if parts[0] not in _PACKAGES:
        return
    for depth in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:depth])
        for file in (path / '__init__.py', path.with_suffix('.py')):
            if file.is_file():
                yield file


def list_sources(name: str, root: Path = _ROOT) -> set[Path]:
    """The files whose content decides what a component does.

    Args:
      name: of a module, such as 'components.pusher', or of a package, such as 'components.model_gate', which stands for
        every file in its folder.
      root: the folder that holds our packages.

    Returns:
      The files of the module or package, and all files of ours that they import, directly or not.
    """
    folder = root.joinpath(*name.split('.'))
    pending = [file for file in folder.rglob('*') if file.is_file() and '__pycache__' not in file.parts]
    pending += _find_module(name, root)
    found: set[Path] = set()
    while pending:
        file = pending.pop()
        if file not in found:
            found.add(file)
            if file.suffix == '.py':
                pending += [source for imported in _list_imports(file) for source in _find_module(imported, root)]
    return found


def compute_source_digest(names: Iterable[str], root: Path = _ROOT) -> str:
    """SHA-256, in lower-case hex, over the relative paths and the bytes of the files of `list_sources`."""
    digest = hashlib.sha256()
    files = {file for name in names for file in list_sources(name, root)}
    for file in sorted(files, key=lambda file: file.relative_to(root).parts):
        content = file.read_bytes()
        digest.update(f'{file.relative_to(root).as_posix()}:{len(content)}:'.encode())
        digest.update(content)
    return digest.hexdigest()


def list_code_names(component: 'base_component.BaseComponent') -> list[str]:
    """The modules and packages of ours that a component runs; empty for one that runs only TFX's code.

    They are those of its executor and its driver, and those of the functions that it is told by dotted path. A module
    in a folder of `components` stands for the whole folder.
    """
    classes = (component.executor_spec.executor_class, component.driver_class)
    paths = [component.exec_properties.get(key) for key in _FUNCTION_KEYS]
    modules = [cls.__module__ for cls in classes] + [path.rpartition('.')[0] for path in paths if path]
    parts = [module.split('.') for module in modules if module.split('.')[0] in _PACKAGES]
    return sorted({'.'.join(part[:2]) for part in parts})


def add_source_digests(components: 'Iterable[base_component.BaseComponent]') -> None:
    """Puts the digest of its code into the execution properties of every component that runs code of ours."""
    for component in components:
        if names := list_code_names(component):
            component.exec_properties[DIGEST_KEY] = compute_source_digest(names)
