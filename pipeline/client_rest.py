"""REST: asks a model on a server for predictions, in the column form, with images in base64."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from components import features
from pipeline.classifier import Interface, RefusedError, Reply
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
        self._version: int | None = None  # that the metadata name

    def describe(self) -> Interface:
        """Says what the model can be asked, see `pipeline.classifier.Model`."""
        response = self._send('GET', f'{self._url}/metadata')
        try:
            content = response.json()
            version = str(content['model_spec'].get('version', ''))
            signatures = content['metadata']['signature_def']['signature_def']
            interface = Interface(frozenset(signatures), _find_image_size(signatures))
        except (requests.JSONDecodeError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise self._explain(response) from error
        self._version = int(version) if version.isdigit() else None
        return interface

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        """Runs a signature, see `pipeline.classifier.Model`."""
        rows = [{'b64': base64.b64encode(image).decode()} for image in images]
        outputs, version = self._predict(signature, {features.IMAGE_KEY: rows})
        return Reply(int(version) if version.isdigit() else self._version, outputs)

    def name_classes(self, labels: Sequence[int]) -> list[str]:
        """Asks for the names of the classes, see `pipeline.classifier.Model`."""
        outputs, _ = self._predict(features.SIGNATURE_CLASS_NAMES, {features.LABEL_KEY: list(labels)})
        names: list[str] = outputs  # REST does not name an output that is the only one
        return names

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _predict(self, signature: str, inputs: dict[str, Any]) -> tuple[Any, str]:
        """Returns the outputs of a signature, and the version, or '' if the server does not say it."""
        body = json.dumps({'signature_name': signature, 'inputs': inputs})
        response = self._send('POST', f'{self._url}:predict', body)
        if response.status_code == _BAD_REQUEST:
            raise RefusedError(f'cannot be classified: {_read_failure(response)}')
        try:
            return response.json()['outputs'], response.headers.get(_VERSION_HEADER, '')
        except (requests.JSONDecodeError, TypeError, KeyError) as error:
            raise self._explain(response) from error

    def _send(self, method: str, url: str, body: str | None = None) -> requests.Response:
        timeouts = (min(_CONNECT_TIMEOUT_S, self._deadline_s), self._deadline_s)
        try:
            return self._session.request(method, url, data=body, timeout=timeouts, proxies=self._proxies)
        except requests.ReadTimeout as error:
            raise explain_delay(self._target, self._deadline_s) from error
        except requests.RequestException as error:
            raise explain_silence(self._target, _find_cause(error)) from error

    def _explain(self, response: requests.Response) -> ServerError:
        if response.status_code == _GATEWAY_TIMEOUT:
            return explain_delay(self._target, self._deadline_s)
        return ServerError(f'{self.name} refuses a request with {response.status_code}: {_read_failure(response)}')


def _find_image_size(signatures: dict[str, Any]) -> int | None:
    """Returns the height of the images that `serving_raw` takes; None for a model without it."""
    if features.SIGNATURE_RAW not in signatures:
        return None
    image = signatures[features.SIGNATURE_RAW]['inputs'][features.IMAGE_KEY]
    return int(image['tensor_shape']['dim'][1]['size'])


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


def _read_failure(response: requests.Response) -> str:
    """Returns the server's words in one line."""
    try:
        text = response.json()['error']
    except (requests.JSONDecodeError, TypeError, KeyError):
        text = response.text
    return ' '.join(str(text).split())[:300] or response.reason


def _find_cause(error: requests.RequestException) -> str:
    """Returns why a connection failed in few words, out of the exceptions of three libraries."""
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, 'reason', cause)  # of urllib3's last attempt
    text = str(cause.args[0] if getattr(cause, 'args', None) else cause)
    return re.sub(r'^\w+\(host=.*?\): ', '', ' '.join(text.split()))[:300]
