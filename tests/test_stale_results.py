"""No result goes stale: an edit of any file that a component runs makes TFX run the component again, and no other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.source_digest import DIGEST_KEY, compute_source_digest, list_code_names
from pipeline.config import PRESETS
from pipeline.pipeline import create_pipeline
from tests.conftest import PROJECT
from tests.run_files import PACKAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def nodes() -> list:
    """The components of the sample pipeline."""
    return create_pipeline(PRESETS['sample']('/root-folder')).components


@pytest.fixture(scope='module')
def run_files() -> dict[str, list[str]]:
    """The files of ours that Python itself runs for each component, found in a fresh process."""
    command = [sys.executable, '-m', 'tests.run_files']
    return json.loads(subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout)


def is_in_folder_of(file: Path, run: list[str]) -> bool:
    """Returns whether a file is in the folder of a component that has one; its module is named component.py."""
    own = [Path(other).parent for other in run if Path(other).name == 'component.py']
    return any(file.is_relative_to(folder) for folder in own[:1])


def test_every_component_that_runs_code_of_ours_has_the_digest_of_that_code_in_its_cache_key(nodes, run_files):
    digests = {node.id: node.exec_properties.get(DIGEST_KEY) for node in nodes}
    with_code = {node.id for node in nodes if run_files[node.id]}
    # Report's code is in the package pipeline, and its results are never reused, see ReportDriver.
    assert with_code == set(digests) - {'StatisticsGen', 'ExampleValidator', 'Report'}
    for node in nodes:
        expected = compute_source_digest(list_code_names(node)) if node.id in with_code else None
        assert digests[node.id] == expected


def test_one_more_character_changes_the_digests_of_the_components_that_run_the_file_and_no_others(
    nodes, run_files, tmp_path
):
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns('__pycache__'))
    names = {node.id: list_code_names(node) for node in nodes}

    def compute_digests() -> dict[str, str]:
        return {node: compute_source_digest(own, tmp_path) for node, own in names.items()}

    before = compute_digests()
    assert before == {node: compute_source_digest(own) for node, own in names.items()}
    files = sorted(file for package in PACKAGES for file in (tmp_path / package).rglob('*.py'))
    assert len(files) > 40
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b'#')
        after = compute_digests()
        file.write_bytes(content)
        name = file.relative_to(tmp_path)
        changed = {node for node in before if before[node] != after[node]}
        assert changed == {node for node, run in run_files.items() if str(name) in run or is_in_folder_of(name, run)}, (
            name
        )
