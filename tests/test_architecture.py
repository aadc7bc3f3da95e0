"""Which way imports go, and what the locks and the package's metadata must hold."""

import ast
import importlib.metadata
import re

import pytest

from tests.conftest import PROJECT

PACKAGES = ('components', 'trainer', 'pipeline', 'kubeflow', 'benchmarks')
ALLOWED = {
    'components': {'components'},
    'trainer': {
        'trainer',
        'components.features',
        'components.contract',
        'components.contract_schema',
        'components.errors',
        'components.hyperparameters',
        'components.onnx_model',
        'components.places',  # checkpoints can be in an object store
        'components.progress',
        'components.settings',
        'components.source_digest',
        'components.staging',
    },
    'pipeline': {'pipeline', 'components', 'trainer'},
    'kubeflow': {'kubeflow', 'pipeline', 'components', 'trainer'},
}


def list_imports(file) -> set[str]:
    """The modules of ours that a file imports, as 'components.features'."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module in PACKAGES:
                found.update(f'{node.module}.{alias.name}' for alias in node.names)
            else:
                found.add(node.module or '')
    return {name for name in found if name.split('.')[0] in PACKAGES}


LOCKS = ('requirements.txt', 'requirements-dev.txt')
COMMAND_LINE = PROJECT / 'pipeline' / '__main__.py'


@pytest.mark.parametrize('package', ALLOWED)
def test_imports_go_one_way(package):
    for file in sorted((PROJECT / package).rglob('*.py')):
        allowed_here = ALLOWED[package] | ({'kubeflow'} if file == COMMAND_LINE else set())
        for name in list_imports(file):
            assert any(name == allowed or name.startswith(f'{allowed}.') for allowed in allowed_here), (
                f'{file.relative_to(PROJECT)} imports {name}'
            )


def test_the_data_contract_imports_nothing():
    assert not [
        node
        for node in ast.walk(ast.parse((PROJECT / 'components' / 'features.py').read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def test_the_model_is_pure_keras():
    tree = ast.parse((PROJECT / 'trainer' / 'model.py').read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {'keras'}


def test_init_files_are_empty():
    for package in PACKAGES:
        for file in (PROJECT / package).rglob('__init__.py'):
            assert file.read_text() == ''


@pytest.mark.parametrize('name', [*LOCKS, 'requirements-uv.txt', 'kubeflow/requirements-gpu.txt'])
def test_every_locked_package_has_a_version_and_hashes_and_no_address(name):
    text = (PROJECT / name).read_text()
    entries = re.split(r'\n(?=\S)', text.strip())
    assert entries
    for entry in entries:
        assert re.match(r'[a-z0-9._-]+(\[[a-z0-9,-]+\])?==\S+', entry), entry.splitlines()[0]
        assert '--hash=sha256:' in entry, entry.splitlines()[0]
    assert '://' not in text
    assert not re.search(r'^--?(index|extra|find|i\b|f\b)', text, flags=re.MULTILINE)


def test_the_tests_lock_is_the_lock_and_what_the_tests_need():
    from pipeline.doctor import read_lock

    lock, more = (read_lock((PROJECT / name).read_text()) for name in LOCKS)
    assert lock.items() < more.items()
    assert {'pytest', 'ruff'} <= more.keys() - lock.keys()


def test_the_lock_has_all_that_the_packages_of_onnx_need_beside_themselves():
    """docs/serving.md says so: they can be added without resolving anything."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    from pipeline.doctor import read_lock
    from trainer.config import ONNX_PACKAGES

    lock, more = (read_lock((PROJECT / name).read_text()) for name in LOCKS)
    assert set(ONNX_PACKAGES) <= more.keys() - lock.keys()
    for name in ONNX_PACKAGES:
        for needed in map(Requirement, importlib.metadata.requires(name)):
            if needed.name not in ONNX_PACKAGES and (not needed.marker or needed.marker.evaluate({'extra': ''})):
                assert needed.specifier.contains(lock[canonicalize_name(needed.name)]), f'{name} needs {needed}'


def test_the_lock_keeps_the_overrides():
    from packaging.requirements import Requirement

    from pipeline.doctor import read_lock

    pins = read_lock((PROJECT / 'requirements.txt').read_text())
    lines = (PROJECT / 'overrides.txt').read_text().splitlines()
    overrides = [Requirement(line) for line in lines if line and not line.startswith('#')]
    assert len(overrides) >= 10
    for override in overrides:
        assert override.specifier.contains(pins[override.name]), override


def test_no_locked_package_has_the_name_of_one_of_ours():
    from pipeline.doctor import read_lock

    pins = read_lock((PROJECT / 'requirements.txt').read_text())
    assert len(pins) > 100
    assert not set(PACKAGES) & set(pins)
