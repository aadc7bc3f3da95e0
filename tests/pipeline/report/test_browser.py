"""The report in a browser: axe-core finds no serious fault in it, and it requests nothing."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import axe_core_python
import pytest

from pipeline.report.report import make_report
from tests.chromium import OWN_REQUESTS
from tests.pipeline.report.test_report import OWN, folders, write_artifacts  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium; on Debian: apt-get install chromium'),
]
_AXE = Path(axe_core_python.__file__).parent / 'axe.min.js'
_RUN = """
axe.run(document, {resultTypes: ['violations']}).then(found => {
  const faults = found.violations.map(each => [each.impact, each.id, each.nodes.map(node => node.html)]);
  document.body.innerHTML = '<pre id="found"></pre>';
  document.getElementById('found').textContent = JSON.stringify(faults);
});
"""


@pytest.fixture(scope='module')
def page(folders, tmp_path_factory) -> Path:  # noqa: F811  (the fixture)
    out = tmp_path_factory.mktemp('browser') / 'report.html'
    make_report(folders, out)
    return out


def open_page(page: Path, *options: str) -> str:
    """Opens a page in Chromium, and returns its document when its scripts have run."""
    # Without a sandbox, because the root user of a container may not make one; the page is our own.
    command = [
        'chromium',
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--virtual-time-budget=20000',
        *options,
    ]
    command += ['--dump-dom', page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize(('scheme', 'width'), [(1, 1280), (0, 1280), (1, 390)], ids=['light', 'dark', 'phone'])
def test_axe_finds_no_serious_fault(page, scheme, width):
    check_axe(page, scheme, width)


def test_axe_finds_no_serious_fault_in_the_page_of_100_classes(tmp_path):
    make_report(write_artifacts(tmp_path, OWN[100]), tmp_path / 'report.html')
    check_axe(tmp_path / 'report.html', 1, 390)


def check_axe(page: Path, scheme: int, width: int) -> None:
    with_axe = page.with_name(f'axe-{scheme}-{width}.html')
    script = f'<script>{_AXE.read_text()}</script><script>{_RUN}</script>'
    with_axe.write_text(page.read_text().replace('</body>', f'{script}</body>'))
    options = (f'--blink-settings=preferredColorScheme={scheme}', f'--window-size={width},900')
    found = re.search(r'<pre id="found">(.*)</pre>', open_page(with_axe, *options), flags=re.DOTALL)
    assert found, 'axe has not run'
    faults = json.loads(found[1].replace('&lt;', '<').replace('&gt;', '>').replace('&amp;', '&'))
    assert [fault for fault in faults if fault[0] in ('serious', 'critical')] == []


def test_the_page_requests_nothing_but_itself(page, tmp_path):
    log = tmp_path / 'net.json'
    quiet = ('--disable-background-networking', '--disable-component-update', '--no-first-run')  # the browser itself
    assert '<h1>' in open_page(page, f'--log-net-log={log}', f'--user-data-dir={tmp_path / "profile"}', *quiet)
    events = json.loads(log.read_text())['events']
    urls = {event['params']['url'] for event in events if 'url' in event.get('params', {})}
    assert not [url for url in urls if not url.startswith(('file:', 'data:', 'chrome')) and not OWN_REQUESTS.match(url)]
