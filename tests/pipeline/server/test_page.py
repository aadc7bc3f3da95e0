"""The server's page: what its routes answer, and in a browser everything that people do with it."""

import base64
import io
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import numpy as np
import pytest
import requests
import tensorflow as tf
import uvicorn
from PIL import Image
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from components import features
from components.contract import CONTRACT_FILE, DataContract
from components.data import cifar10
from components.model_contract import read_model_contract
from components.serving.versions import MODEL_FILE, WARMUP_FILE
from pipeline.server import models, page
from pipeline.server.batching import Direct
from pipeline.server.faults import refuse
from pipeline.server.metrics import Metrics
from pipeline.server.models import ModelStore
from pipeline.server.rest import make_app
from pipeline.server.service import Service
from tests.chromium import OWN_REQUESTS, Tab, open_browser

needs_chromium = pytest.mark.skipif(
    not shutil.which('chromium'), reason='needs Chromium; on Debian: apt-get install chromium'
)
_AXE = Path(axe_core_python.__file__).parent / 'axe.min.js'
_FIND_FAULTS = """
axe.run(document, {resultTypes: ['violations']}).then(found => JSON.stringify(
  found.violations.filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => [each.impact, each.id, each.nodes.map(node => node.html)])))
"""


def make_png(color) -> bytes:
    out = io.BytesIO()
    Image.new('RGB', (32, 32), color).save(out, 'PNG')
    return out.getvalue()


class StandIn:
    """A version whose answer is the picture's strongest colour: airplane for red, automobile for green, bird for blue.

    Odd versions explain their answers, even ones cannot, and refuse white.
    """

    def __init__(self, name: str, number: int, folder: Path):
        self.name, self.number, self.folder = name, number, folder
        self.contract = read_model_contract(folder)
        names = [features.SIGNATURE_SERVING_DEFAULT, *([features.SIGNATURE_EXPLAIN] if number % 2 else [])]
        self.signatures = {name: meta_graph_pb2.SignatureDef() for name in names}

    def check_inputs(self, signature, inputs):
        """Takes everything."""

    def warm_up(self) -> int:
        return 0

    def run(self, signature, inputs):
        (encoded,) = inputs[features.IMAGE_KEY]
        try:
            pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))
        except OSError:
            raise refuse('image 0 of 1 cannot be decoded') from None
        if not self.number % 2 and pixels.min() == 255:
            raise refuse('white is refused')
        label = int(pixels.mean(axis=(0, 1)).argmax())
        count = self.contract.num_classes
        probabilities = np.full((1, count), 0.2 / count, np.float32)
        probabilities[0, label] += 0.8
        outputs = {
            features.OUTPUT_LABEL: np.array([label]),
            features.OUTPUT_CLASS_NAME: np.array([b''], object),
            features.OUTPUT_PROBABILITIES: probabilities,
        }
        if signature == features.SIGNATURE_EXPLAIN:
            (asked,) = inputs[features.LABEL_KEY]
            if asked >= count:
                raise refuse(f'assertion failed: [label must be -1 to {count - 1}]')
            heat = np.zeros((1, 4, 4), np.float32)
            heat[0, 0, label if asked == features.NO_LABEL else asked % 4] = 1
            outputs |= {features.OUTPUT_SEEN: pixels[None], features.OUTPUT_HEAT_MAP: heat}
        return outputs


@pytest.fixture(scope='module')
def serving(tmp_path_factory) -> Path:
    """A serving folder with the versions 6 and 7, which keep two samples each."""
    folder = tmp_path_factory.mktemp('serving')
    write_versions(folder)
    return folder


def write_versions(folder: Path) -> None:
    for number in (6, 7):
        version = folder / str(number)
        version.mkdir()
        (version / MODEL_FILE).touch()
        (version / WARMUP_FILE).parent.mkdir()
        with tf.io.TFRecordWriter(str(version / WARMUP_FILE)) as writer:
            for count in (1, 2):
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.signature_name = features.SIGNATURE_SERVING_DEFAULT
                images = [make_png('red'), make_png('blue')][:count]
                request.inputs[features.IMAGE_KEY].CopyFrom(tf.make_tensor_proto(images))
                writer.write(log.SerializeToString())


class Running:
    """The application in a thread."""

    def __init__(self, store: ModelStore):
        self.store = store
        app = make_app(Service(store, Direct(), Metrics()), 30, None)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='error', lifespan='off'))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            pass
        self.url = f'http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}'

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


def make_models(serving: Path, **labels: int) -> list[model_server_config_pb2.ModelConfig]:
    model = model_server_config_pb2.ModelConfig(name='cifar10', base_path=str(serving))
    model.model_version_policy.specific.versions.extend([6, 7])
    model.version_labels.update(labels)
    return [model]


@pytest.fixture
def running(serving, monkeypatch) -> Iterator[Running]:
    yield from run_server(serving, monkeypatch)


def run_server(serving: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(models, 'LoadedVersion', StandIn)
    store = ModelStore(make_models(serving), lambda line: None, Metrics(), allow_unavailable_labels=True)
    store.follow()
    running = Running(store)
    yield running
    running.stop()


def ask(running: Running, image: bytes, query: str = '') -> requests.Response:
    return requests.post(f'{running.url}/page/ask{query}', data=image, timeout=30)


def test_the_state_lists_versions_labels_and_samples(running, serving):
    state = requests.get(f'{running.url}/page/state', timeout=30).json()
    assert state == {'model': 'cifar10', 'versions': [7, 6], 'labels': {}, 'samples': 2, 'max_bytes': 20_000_000}
    running.store.configure(make_models(serving, stable=6))
    assert requests.get(f'{running.url}/page/state', timeout=30).json()['labels'] == {'stable': 6}
    assert requests.get(f'{running.url}/page/samples/1', timeout=30).content == make_png('blue')
    assert requests.get(f'{running.url}/page/samples/2', timeout=30).status_code == 404


def test_an_answer_has_the_classes_the_version_and_two_pictures(running):
    answer = ask(running, make_png('lime')).json()
    assert (answer['version'], answer['class_name'], answer['explained']) == (7, 'automobile', 'automobile')
    assert answer['class_names'] == list(cifar10.CONTRACT.class_names)
    assert answer['probabilities'] == pytest.approx([0.02, 0.82, *[0.02] * 8])
    assert answer['seen'].startswith('data:image/png;base64,')
    other = ask(running, make_png('lime'), '?class=2').json()
    assert (other['class_name'], other['explained']) == ('automobile', 'bird')
    assert other['heat'] != answer['heat']
    older = ask(running, make_png('lime'), '?version=6').json()
    assert (older['version'], 'seen' in older) == (6, False)


def test_the_browser_is_told_to_load_nothing_from_elsewhere(running):
    answer = requests.get(running.url, timeout=30)
    assert answer.headers['Content-Security-Policy'].startswith("default-src 'none'; connect-src 'self'; ")


@pytest.mark.parametrize(
    ('image', 'query', 'status', 'message'),
    [
        (b'no image', '', 400, 'image 0 of 1 cannot be decoded'),
        (b'', '?label=canary', 400, 'Unrecognized servable version label: canary'),
        (b'', '?version=8', 404, 'Servable not found for request: Specific(cifar10, 8)'),
        (b'', '?version=last', 400, '?version= takes a number. Received: last'),
        (make_png('red'), '?class=10', 400, 'label must be -1 to 9'),
        (bytes(page.MAX_IMAGE_BYTES + 1), '', 413, 'The file has more than 20 MB; choose a smaller one.'),
    ],
    ids=['broken', 'label', 'version', 'number', 'class', 'size'],
)
def test_a_wrong_request_gets_a_sentence(running, image, query, status, message):
    answer = ask(running, image, query)
    assert (answer.status_code, answer.json()['error']) == (status, message)


@pytest.fixture
def tab(tmp_path) -> Iterator[Tab]:
    with open_browser(tmp_path, f'--log-net-log={tmp_path / "net.json"}') as tab:
        yield tab


def open_page(tab: Tab, running: Running) -> None:
    tab.open(f'{running.url}/')
    tab.wait_for('document.querySelectorAll("#samples button").length == 2')


# What the browser does when a file is chosen in its dialog, dropped, or pasted.
_CHOOSE = (
    'const input = document.getElementById("file"); input.files = data.files; input.dispatchEvent(new Event("change"))'
)
_DROP = 'document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}))'
_PASTE = 'document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}))'


def send_file(tab: Tab, content: bytes, way: str = _CHOOSE) -> None:
    """Puts a file into the page."""
    tab.evaluate(f"""{{
      const content = Uint8Array.from(atob('{base64.b64encode(content).decode()}'), each => each.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([content], 'photo.png', {{type: 'image/png'}}));
      {way};
    }}""")


@pytest.mark.slow
@needs_chromium
def test_everything_can_be_done_with_the_keyboard(running, serving, tab):
    open_page(tab, running)
    tab.press('Tab')
    assert tab.evaluate('document.activeElement.id') == 'file'
    tab.press('Tab')
    tab.press('Tab')
    assert tab.evaluate('document.activeElement.getAttribute("aria-label")') == 'Sample 2'
    tab.press('Enter')
    assert tab.wait_for('document.querySelector(".best")?.textContent') == 'bird'
    assert tab.evaluate('document.querySelector(".answer h2").textContent') == 'newest: version 7'
    assert tab.evaluate('document.querySelectorAll(".bar").length') == 10
    assert tab.evaluate('document.querySelector(".bar[aria-pressed=true]").innerText').split() == ['bird', '0.820']
    assert 'version 7: bird, probability 0.820' in tab.evaluate('document.getElementById("said").textContent')
    tab.wait_for('[...document.images].every(image => image.complete && image.naturalWidth)')
    assert tab.evaluate('document.querySelectorAll(".pictures img").length') == 4
    first = tab.evaluate('document.querySelector(".heat").src')
    for _ in range(12):
        if 'airplane' in (tab.evaluate('document.activeElement.getAttribute("aria-label")') or ''):
            break
        tab.press('Tab')
    tab.press('Enter')
    tab.wait_for('document.getElementById("said").textContent == "Where version 7 looked for airplane."')
    assert tab.evaluate('document.querySelector(".heat").src') != first
    # Stable and canary stand side by side as soon as both have a version.
    running.store.configure(make_models(serving, stable=6, canary=7))
    tab.evaluate('document.querySelector("#samples button").click()')
    tab.wait_for('document.querySelectorAll(".answer").length == 2')
    titles = tab.evaluate('[...document.querySelectorAll(".answer")].map(each => each.innerText)')
    assert titles[0].startswith('stable: version 6')
    assert 'This version was pushed without an explanation of its answers.' in titles[0]
    assert titles[1].startswith('canary: version 7')


# Numbers as names: JSON's objects have such keys in another order.
NUMBERS = DataContract(tuple(str(number) for number in reversed(range(300))), 64, is_square=False)


@pytest.fixture
def running_numbers(tmp_path, monkeypatch) -> Iterator[Running]:
    """A server whose versions have 300 classes."""
    write_versions(tmp_path)
    for number in (6, 7):
        (tmp_path / str(number) / CONTRACT_FILE).write_text(NUMBERS.to_json())
    yield from run_server(tmp_path, monkeypatch)


@pytest.mark.slow
@needs_chromium
def test_of_many_classes_ten_are_shown_and_the_others_on_request(running_numbers, tab):
    open_page(tab, running_numbers)
    send_file(tab, make_png('lime'))
    tab.wait_for('document.querySelector(".best")?.textContent == "298"')
    is_visible = '[...document.querySelectorAll(".bar")].filter(bar => bar.checkVisibility()).length'
    assert tab.evaluate(is_visible) == 10
    assert tab.evaluate('document.querySelector("summary").textContent') == '290 more'
    tab.evaluate('document.querySelector("summary").click()')
    assert tab.evaluate(is_visible) == 300
    names = tab.evaluate('[...document.querySelectorAll(".bar")].map(bar => bar.innerText.split("\\n")[0])')
    assert names == ['298', '299', *(str(number) for number in reversed(range(298)))]
    tab.evaluate('[...document.querySelectorAll(".bar")].at(-1).click()')
    tab.wait_for('document.getElementById("said").textContent == "Where version 7 looked for 0."')


@pytest.mark.slow
@needs_chromium
def test_an_image_can_be_chosen_dropped_and_pasted(running, serving, tab):
    open_page(tab, running)
    for way, color, name in ((_CHOOSE, 'red', 'airplane'), (_DROP, 'lime', 'automobile'), (_PASTE, 'blue', 'bird')):
        send_file(tab, make_png(color), way)
        tab.wait_for(f'document.querySelector(".best")?.textContent == "{name}"')
    tab.evaluate(
        'document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: new DataTransfer(), bubbles: true}))'
    )
    assert tab.evaluate('document.getElementById("fault").textContent') == 'The clipboard holds no image.'
    # One of two versions refuses the image: the other one's answer is shown all the same.
    running.store.configure(make_models(serving, stable=6, canary=7))
    send_file(tab, make_png('white'))
    tab.wait_for('document.querySelectorAll(".answer").length == 2')
    assert tab.evaluate('document.querySelector(".answer").innerText').split('\n\n') == ['stable', 'white is refused']
    assert tab.evaluate('document.querySelectorAll(".best").length') == 1
    assert tab.evaluate('document.getElementById("fault").textContent') == ''


@pytest.mark.slow
@needs_chromium
def test_what_goes_wrong_is_said_and_nothing_is_asked_elsewhere(running, tab, tmp_path):
    open_page(tab, running)
    send_file(tab, b'no image')
    fault = 'document.getElementById("fault").textContent'
    assert tab.wait_for(fault) == 'image 0 of 1 cannot be decoded'
    assert tab.evaluate('document.querySelectorAll(".answer").length') == 0
    tab.evaluate('state.max_bytes = 10')
    send_file(tab, b'larger than ten bytes')
    assert 'choose a smaller one' in tab.evaluate(fault)
    running.stop()
    tab.evaluate('state.max_bytes = 1000')
    send_file(tab, b'anything')
    tab.wait_for(f'{fault} == "The server does not answer; is it still running?"')
    tab.finish()
    urls = set(re.findall(r'"url":"(http[^"]+)', (tmp_path / 'net.json').read_text()))
    assert f'{running.url}/' in urls
    assert not [url for url in urls if not url.startswith(running.url) and not OWN_REQUESTS.match(url)]


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(('width', 'is_dark'), [(1280, False), (1280, True), (390, False), (390, True)])
def test_axe_finds_no_serious_fault(running, tab, width, is_dark):
    tab.resize(width, 900, is_dark=is_dark)
    open_page(tab, running)
    tab.evaluate(_AXE.read_text())
    assert tab.evaluate(_FIND_FAULTS) == '[]'
    tab.evaluate('document.querySelector("#samples button").click()')
    tab.wait_for('!!document.querySelector(".best")')
    assert tab.evaluate(_FIND_FAULTS) == '[]'
    assert tab.evaluate('document.documentElement.scrollWidth') <= width
