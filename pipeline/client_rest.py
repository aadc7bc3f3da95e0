"""REST: asks a model on a server for predictions, in the column form, with images in base64."""

import base64
import json
import re
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from components import features
from pipeline.classifier import RefusedError, Reply
from pipeline.client import (
    ATTEMPTS,
    FIRST_BACKOFF_S,
    LAST_BACKOFF_S,
    ServerError,
    Target,
    explain_delay,
    explain_silence,
)

_VERSION_HEADER = 'X-Model-Version'  # of pipeline.server; TensorFlow Serving does not say which version answers
_CONNECT_TIMEOUT_S = 10.0
_BAD_REQUEST, _GATEWAY_TIMEOUT = 400, 504


class RestModel:
    """A model on a server, see `pipeline.classifier.Model`.

    Args:
      target: the model and the server.
      deadline_s: seconds until the answer to an attempt has to begin.
    """

    batch_size = 32
    concurrency = 2

    def __init__(self, target: Target, deadline_s: float):
        self.name = target.address
        self._target, self._deadline_s = target, deadline_s
        chosen = f'/versions/{target.version}' if target.version is not None else ''
        chosen = f'/labels/{quote(target.label, safe="")}' if target.label is not None else chosen
        scheme = 'https' if target.is_tls else 'http'
        self._url = f'{scheme}://{target.address}/v1/models/{quote(target.model, safe="")}{chosen}'
        self._proxies = {'no_proxy': target.host} if target.is_local else None
        self._session = requests.Session()
        self._session.mount(f'{scheme}://', HTTPAdapter(max_retries=_make_retry()))
        self._lock = threading.Lock()
        self._found: list[int | None] = []  # the version that the status names, once it was asked for

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        """Runs a signature, see `pipeline.classifier.Model`."""
        rows = [{'b64': base64.b64encode(image).decode()} for image in images]
        body = json.dumps({'signature_name': signature, 'inputs': {features.IMAGE_KEY: rows}})
        response = self._send('POST', f'{self._url}:predict', body)
        try:
            content = response.json()
            outputs, failure = content.get('outputs'), content.get('error')
        except (requests.JSONDecodeError, AttributeError):
            outputs, failure = None, response.text
        if response.status_code == _BAD_REQUEST:
            raise RefusedError(f'cannot be classified: {_shorten(failure)}')
        if response.status_code == _GATEWAY_TIMEOUT:
            raise explain_delay(self._target, self._deadline_s)
        if not response.ok or not isinstance(outputs, dict):
            raise ServerError(f'{self.name} refuses a request with {response.status_code}: {_shorten(failure)}')
        version = response.headers.get(_VERSION_HEADER, '')
        return Reply(int(version) if version.isdigit() else self._find_version(), outputs)

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _send(self, method: str, url: str, body: str | None = None) -> requests.Response:
        timeouts = (min(_CONNECT_TIMEOUT_S, self._deadline_s), self._deadline_s)
        try:
            return self._session.request(method, url, data=body, timeout=timeouts, proxies=self._proxies)
        except requests.ReadTimeout as error:
            raise explain_delay(self._target, self._deadline_s) from error
        except requests.RequestException as error:
            raise explain_silence(self._target, _shorten(str(error))) from error

    def _find_version(self) -> int | None:
        """Asks once which version answers, where the answers do not say it: the newest one of those that may."""
        with self._lock:
            if self._target.version is not None:
                return self._target.version
            if not self._found:
                self._found = [self._read_newest()]
            return self._found[0]

    def _read_newest(self) -> int | None:
        try:
            states: list[dict[str, Any]] = self._send('GET', self._url).json()['model_version_status']
            return max((int(state['version']) for state in states if state['state'] == 'AVAILABLE'), default=None)
        except (ServerError, ValueError, KeyError, TypeError):
            return None


def _make_retry() -> Retry:
    """Returns what to ask again after: a refused connection, and 503. `read=False` leaves a deadline as it is."""
    return Retry(
        total=ATTEMPTS - 1,
        read=False,
        other=0,
        redirect=0,
        allowed_methods=None,
        status_forcelist=(503,),
        raise_on_status=False,
        backoff_factor=FIRST_BACKOFF_S,
        backoff_max=LAST_BACKOFF_S,
        backoff_jitter=FIRST_BACKOFF_S,
        respect_retry_after_header=False,  # which may ask for any time
    )


def _shorten(text: str | None) -> str:
    """Returns a server's words, or a library's, in one line."""
    line = ' '.join((text or 'it does not say why').split())
    line = re.sub(r'<\w[\w.]* object at 0x\w+>: ', '', line)
    return line if len(line) <= 300 else f'{line[:300]}...'
