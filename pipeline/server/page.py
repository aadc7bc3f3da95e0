"""The server's page at `/`: for a picture, what each served version says, what it saw, and where it looked.

The page loads nothing from elsewhere. It asks these routes of its own, because the heat map and the network's input are
pictures, which TensorFlow Serving's JSON would spell out number by number:

    GET  /page/state          which versions and labels there are, and how many samples
    GET  /page/samples/N      a real image of those that the version was checked with
    POST /page/ask            an image file; answers with the classes and the pictures
"""

import asyncio
import base64
import io
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio has neither types nor stubs in the lock
import numpy as np
import numpy.typing as npt
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from components import features
from pipeline.server.faults import ServiceError, refuse
from pipeline.server.models import LoadedVersion, State, read_warmups
from pipeline.server.service import Asked, Service

MAX_IMAGE_BYTES = 20_000_000  # a photo of today's cameras has less
_MAX_ASKING = 16  # images that are here at the same time
_MAX_SAMPLES = 12  # that are shown
_PAGE = Path(__file__).with_name('page.html')
_TIMEOUT_S = 60.0
_ASSERTION = re.compile(r'assertion failed: \[(.*)\]', re.DOTALL)  # what TensorFlow makes of a model's own sentence
_ONLY_HERE = (  # lets the page load nothing from elsewhere, whatever is written into it
    "default-src 'none'; connect-src 'self'; img-src data: blob:; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
)
_HOT = np.array([255, 215, 0], np.uint8)  # of the heat map; it is transparent where the network did not look


def _encode_png(pixels: npt.NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'PNG')
    return f'data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}'


def _color_heat(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Returns a heat map of 0 to 1 as RGBA pixels, more opaque where it is hotter."""
    alpha = np.rint(np.clip(heat, 0, 1) * 200).astype(np.uint8)
    return np.dstack([np.broadcast_to(_HOT, (*heat.shape, 3)), alpha])


def _list_class_names(version: LoadedVersion, count: int) -> list[str]:
    """Returns the names of the classes; their numbers for a model of others that does not say them."""
    names = version.contract.class_names
    return list(names) if len(names) == count else [str(number) for number in range(count)]


def _read_samples(version: LoadedVersion) -> list[bytes]:
    """Returns the images among a version's warm-up requests, each once."""
    found: dict[bytes, None] = {}
    for request in read_warmups(version.folder):
        if request.model_spec.signature_name == features.SIGNATURE_SERVING_DEFAULT:
            found.update(dict.fromkeys(request.inputs[features.IMAGE_KEY].string_val))
    return list(found)[:_MAX_SAMPLES]


class Page:
    """Answers the page's requests.

    Args:
      service: has the versions; the page shows the first model.
    """

    def __init__(self, service: Service):
        self._service = service
        self._samples: dict[int, list[bytes]] = {}  # by version
        self._asking = 0

    def list_routes(self) -> list[BaseRoute]:
        """Returns the routes."""
        return [
            Route('/', self.show_page),
            Route('/page/state', self.show_state),
            Route('/page/samples/{number:int}', self.show_sample),
            Route('/page/ask', self.ask, methods=['POST']),
        ]

    async def show_page(self, request: Request) -> Response:
        """Gives the page itself."""
        headers = {'Cache-Control': 'no-cache', 'Content-Security-Policy': _ONLY_HERE}
        return FileResponse(_PAGE, media_type='text/html', headers=headers)

    async def show_state(self, request: Request) -> Response:
        """Says which versions there are."""
        return await run_in_threadpool(self._describe_state)

    def _describe_state(self) -> Response:
        name = self._get_name()
        try:
            states = self._service.store.list_states(name)
        except ServiceError as error:
            return _make_error(error)
        available = [number for number, state in states.items() if state.state == State.AVAILABLE]
        labels = {
            label: number for label, number in self._service.store.list_labels(name).items() if number in available
        }
        samples = len(self._find_samples())
        return JSONResponse(
            {
                'model': name,
                'versions': sorted(available, reverse=True),
                'labels': labels,
                'samples': samples,
                'max_bytes': MAX_IMAGE_BYTES,
            }
        )

    def _get_name(self) -> str:
        return next(iter(self._service.store.list_models()), '')

    def _find_samples(self) -> list[bytes]:
        """Returns the samples of the newest version."""
        try:
            with self._service.store.lease(self._get_name(), None, None) as version:
                if version.number not in self._samples:
                    self._samples = {version.number: _read_samples(version)}
                return self._samples[version.number]
        except ServiceError:
            return []

    async def show_sample(self, request: Request) -> Response:
        """Gives the image with the number in the path."""
        samples = await run_in_threadpool(self._find_samples)
        number: int = request.path_params['number']
        if number >= len(samples):
            return JSONResponse({'error': f'There is no sample {number}.'}, 404)
        return Response(samples[number], media_type='image/png')  # browsers look at the bytes themselves

    async def ask(self, request: Request) -> Response:
        """Classifies the image in the body.

        `?label=` or `?version=` choose the version that answers, `?class=` the class that is explained.
        """
        declared = request.headers.get('content-length', '0')
        too_large = JSONResponse(
            {'error': f'The file has more than {MAX_IMAGE_BYTES // 1_000_000} MB; choose a smaller one.'}, 413
        )
        if not declared.isdigit() or int(declared) > MAX_IMAGE_BYTES:
            return too_large
        if self._asking >= _MAX_ASKING:
            return JSONResponse({'error': 'Too many images are asked about at the same time; try again.'}, 503)
        self._asking += 1  # only the event loop's thread changes it
        image = bytearray()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                async for part in request.stream():
                    image += part
                    if len(image) > MAX_IMAGE_BYTES:
                        return too_large
            return await run_in_threadpool(self._answer, bytes(image), dict(request.query_params))
        except ServiceError as error:
            return _make_error(error)
        except TimeoutError:
            return JSONResponse({'error': f'The image was not here after {_TIMEOUT_S:g} s.'}, 408)
        except ClientDisconnect:
            return JSONResponse({'error': 'The client has gone.'}, 499)
        finally:
            self._asking -= 1

    def _answer(self, image: bytes, choices: dict[str, str]) -> Response:
        number, wanted = (_read_number(choices, key) for key in ('version', 'class'))
        label = choices.get('label')
        name, deadline = self._get_name(), time.monotonic() + _TIMEOUT_S
        with self._service.store.lease(name, number, label) as version:
            inputs: dict[str, Any] = {features.IMAGE_KEY: np.array([image], object)}
            does_explain = features.SIGNATURE_EXPLAIN in version.signatures
            signature = features.SIGNATURE_EXPLAIN if does_explain else features.SIGNATURE_SERVING_DEFAULT
            if does_explain:
                inputs[features.LABEL_KEY] = np.array([features.NO_LABEL if wanted is None else wanted], np.int64)
            began = time.perf_counter()
            asked = Asked(name, signature, number, label, inputs, deadline)
            outputs = self._service.predict_with(version, asked).outputs
            seconds = time.perf_counter() - began
            probabilities = [float(value) for value in outputs[features.OUTPUT_PROBABILITIES][0]]
            if not all(map(math.isfinite, probabilities)):
                raise ServiceError(grpc.StatusCode.INTERNAL, 'The model answered with values that are not numbers.')
            names = _list_class_names(version, len(probabilities))
        best = int(outputs[features.OUTPUT_LABEL][0])
        answer = {
            'version': version.number,
            'class_name': names[best],
            'class_names': names,
            'probabilities': probabilities,
            'milliseconds': round(seconds * 1000, 1),
        }
        if does_explain:
            answer |= {
                'seen': _encode_png(outputs[features.OUTPUT_SEEN][0]),
                'heat': _encode_png(_color_heat(outputs[features.OUTPUT_HEAT_MAP][0])),
                'explained': names[best if wanted is None else wanted],
            }
        return Response(json.dumps(answer), media_type='application/json')


def _read_number(choices: dict[str, str], key: str) -> int | None:
    text = choices.get(key)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise refuse(f'?{key}= takes a number. Received: {text[:40]}')
    return int(text)


def _make_error(error: ServiceError) -> Response:
    status = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404}.get(error.code, 503)
    words = _ASSERTION.fullmatch(error.message)
    return JSONResponse({'error': words[1] if words else error.message}, status)


def make_routes(service: Service) -> list[BaseRoute]:
    """Makes the routes of the page."""
    return Page(service).list_routes()
