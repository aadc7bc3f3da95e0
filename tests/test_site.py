"""The site of the documents: it is built without a warning, has a page for each document, and loads nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import PROJECT


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', folder]
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    answer = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, ''), answer.stderr
    return folder


@pytest.mark.slow
def test_each_document_has_a_page_in_the_list_of_pages(site):
    front = (site / 'index.html').read_text()
    linked = set(re.findall(r'href="([\w/-]+)\.html', front))
    documents = {file.stem for file in (PROJECT / 'docs').glob('*.md')}
    assert documents | {'CONTRIBUTING', 'CHANGELOG', 'reference/pipeline', 'reference/trainer'} <= linked
    reference = (site / 'reference' / 'components.html').read_text()
    assert 'Refuses members that could' not in reference, 'private names are left out'
    assert 'DataError' in reference


@pytest.mark.slow
def test_the_pages_load_nothing_from_elsewhere(site):
    pages = [file.read_text() for file in Path(site).rglob('*.html')]
    assert len(pages) > 15
    loaded = [
        found for page in pages for found in re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(http[^"]*)"', page)
    ]
    assert loaded == []
