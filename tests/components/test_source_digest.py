"""The source digest: which files it covers, and what changes it."""

import pytest

from components.source_digest import compute_source_digest, list_sources


@pytest.fixture
def root(tmp_path):
    """Packages as small as can be: a component in a file, one in a folder, and what they import."""
    files = {
        'components/__init__.py': '',
        'components/features.py': '',
        'components/errors.py': 'from components import features\n',
        'components/pusher.py': 'def push():\n    from components.errors import PipelineError\n',
        'components/gate/__init__.py': '',
        'components/gate/component.py': 'import json\nimport components.errors\n',
        'components/gate/rules/deep.py': '',
        'components/gate/rules/bounds.pbtxt': 'bound: 1',
        'trainer/__init__.py': '',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def list_names(name, root):
    return {file.relative_to(root).as_posix() for file in list_sources(name, root)}


def test_a_file_stands_for_itself_and_all_that_it_imports_of_ours(root):
    imported = {'components/__init__.py', 'components/errors.py', 'components/features.py'}
    assert list_names('components.pusher', root) == {'components/pusher.py', *imported}


def test_a_folder_stands_for_every_file_in_it_at_any_depth(root):
    names = list_names('components.gate', root)
    assert {name for name in names if name.startswith('components/gate/')} == {
        'components/gate/__init__.py',
        'components/gate/component.py',
        'components/gate/rules/deep.py',
        'components/gate/rules/bounds.pbtxt',
    }
    assert 'components/errors.py' in names
    assert 'components/pusher.py' not in names


@pytest.mark.parametrize('name', ['components/features.py', 'components/gate/rules/bounds.pbtxt'])
def test_an_edit_and_a_new_name_change_the_digest(root, name):
    before = compute_source_digest(['components.gate'], root)
    assert compute_source_digest(['components.gate'], root) == before
    file = root / name
    content = file.read_text()
    file.write_text(content + ' ')
    assert compute_source_digest(['components.gate'], root) != before
    file.write_text(content)
    (root / 'components' / 'gate' / 'component.py').rename(root / 'components' / 'gate' / 'other.py')
    assert compute_source_digest(['components.gate'], root) != before


def test_the_digest_does_not_depend_on_where_the_packages_are(root, tmp_path_factory):
    import shutil

    copy = shutil.copytree(root, tmp_path_factory.mktemp('elsewhere') / 'copy')
    assert compute_source_digest(['components.gate'], copy) == compute_source_digest(['components.gate'], root)
