"""Drives Debian's Chromium through its own DevTools protocol, for tests of pages that people click through.

https://chromedevtools.github.io/devtools-protocol/ describes the messages.
"""

import base64
import contextlib
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

_START_S = 60.0
OWN_REQUESTS = re.compile(
    r'https?://(update\.googleapis\.com|clients2\.google\.com|accounts\.google\.com|[\w.-]+\.gvt1\.com)/'
)
"""Where Chromium asks for updates of its own, whatever page is open."""


class Tab:
    """A page in the browser.

    Args:
      socket: to the tab's DevTools.
      process: the browser.
    """

    def __init__(self, socket: ClientConnection, process: subprocess.Popen[bytes]):
        self._socket, self._process = socket, process
        self._numbers = itertools.count()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a message, and returns the answer to it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get('id') != number:
            pass  # an event
        if 'error' in answer:
            raise AssertionError(f'{method}: {answer["error"]}')
        return answer['result']

    def evaluate(self, expression: str) -> Any:
        """Returns the value of an expression of JavaScript; of a promise, what it resolves to."""
        result = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in result:
            raise AssertionError(result['exceptionDetails'])
        return result['result'].get('value')

    def wait_for(self, expression: str, timeout_s: float = 30) -> Any:
        """Waits until an expression is true, and returns its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f'{expression} was not true: {self.evaluate("document.body.innerText")}'
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        """Opens a page, and waits until it is loaded."""
        self.call('Page.navigate', url=url)
        self.wait_for(f'location.href == {json.dumps(url)} && document.readyState == "complete"')

    def resize(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """Sets the size of the window in CSS pixels, and the colour scheme."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if is_dark else 'light'}
        self.call('Emulation.setEmulatedMedia', features=[scheme])

    def press(self, key: str) -> None:
        """Presses a key, such as 'Tab' or 'Enter'."""
        codes = {'Tab': 9, 'Enter': 13, ' ': 32}
        text = {'text': '\r'} if key == 'Enter' else {}
        for kind in ('keyDown', 'keyUp'):
            extra = text if kind == 'keyDown' else {}
            self.call('Input.dispatchKeyEvent', type=kind, key=key, windowsVirtualKeyCode=codes[key], **extra)

    def take_picture(self, file: Path) -> None:
        """Writes a PNG file of the whole page."""
        shot = self.call('Page.captureScreenshot', captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot['data']))

    def finish(self) -> None:
        """Ends the browser, which then has written all of its logs."""
        self._socket.send(json.dumps({'id': next(self._numbers), 'method': 'Browser.close'}))
        self._process.wait(30)


@contextlib.contextmanager
def open_browser(folder: Path, *options: str) -> Iterator[Tab]:
    """Starts a headless browser with a profile of its own, and gives its tab.

    Args:
      folder: an empty folder for the profile.
      options: of Chromium, besides those that every test needs.
    """
    # Without a sandbox, because the root user of a container may not make one; the pages are our own.
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run']
    flags += ['--disable-background-networking', '--disable-component-update', '--no-proxy-server']
    flags += ['--remote-debugging-port=0', f'--user-data-dir={folder}', *options]
    process = subprocess.Popen(
        ['chromium', *flags, 'about:blank'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        port, deadline = folder / 'DevToolsActivePort', time.monotonic() + _START_S
        while not port.exists() or not port.read_text().strip():
            has_time = process.poll() is None and time.monotonic() < deadline
            assert has_time, 'Chromium did not start'
            time.sleep(0.05)
        session = requests.Session()
        session.trust_env = False
        tabs = session.get(f'http://127.0.0.1:{port.read_text().split()[0]}/json/list', timeout=30).json()
        url = next(each['webSocketDebuggerUrl'] for each in tabs if each['type'] == 'page')
        with connect(url, max_size=None, proxy=None) as connection:
            yield Tab(connection, process)
    finally:
        process.terminate()
        process.wait(20)
