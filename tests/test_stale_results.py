"""No result goes stale: an edit of any file that a component runs makes TFX run the component again, and no other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache_keys import PACKAGES
from tests.conftest import PROJECT


@pytest.fixture(scope='module')
def keys(tmp_path_factory) -> dict:
    """What `tests.cache_keys` finds in a copy of our packages."""
    folder = tmp_path_factory.mktemp('copy')
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, folder / package, ignore=shutil.ignore_patterns('__pycache__'))
    command = [sys.executable, '-m', 'tests.cache_keys', str(folder)]
    return json.loads(subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout)


def is_in_folder_of(file: str, run: list[str]) -> bool:
    """Whether a file is in the folder of a component that has one, by the files that the component runs."""
    own = [Path(other).parent for other in run if Path(other).name == 'component.py']
    return any(Path(file).is_relative_to(folder) for folder in own[:1])


@pytest.mark.slow
def test_an_edited_file_changes_the_cache_keys_of_the_components_that_run_it_and_no_others(keys):
    expected = {
        file: sorted(node for node, run in keys['run'].items() if file in run or is_in_folder_of(file, run))
        for file in keys['changed']
    }
    assert keys['changed'] == expected


@pytest.mark.slow
def test_every_component_with_code_of_ours_is_covered(keys):
    own = {node for node, run in keys['run'].items() if run}
    assert own == set(keys['run']) - {'StatisticsGen', 'ExampleValidator'}
    assert own == {node for nodes in keys['changed'].values() for node in nodes}
