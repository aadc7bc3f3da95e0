"""The client asks this project's small server: labels, versions and broken images over both protocols."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import tensorflow as tf

from components.data import cifar10
from components.serving.models_config import MODEL_NAME
from pipeline.classifier import Refusal
from pipeline.client import ServerError, connect
from tests.conftest import PROJECT
from tests.pipeline.fake_model_servers import BROKEN, find_free_port

OLD, NEW = 3, 4  # versions without and with the signature that answers for each image


def save_version(folder: Path, *, has_safe: bool) -> None:
    """Saves a model that says of b'3...' that it shows class 3, and of BROKEN that it is no image."""

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        label = tf.strings.to_number(tf.strings.regex_replace(image, '^[^0-9].*', '0'), tf.int64)
        names, probabilities = (
            tf.constant(cifar10.CONTRACT.class_names),
            tf.one_hot(label, cifar10.CONTRACT.num_classes),
        )
        return {'label': label, 'class_name': tf.gather(names, label), 'probabilities': probabilities}

    def classify_strictly(image: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_none_equal(image, BROKEN, message='broken')]):
            return classify(tf.identity(image))

    def classify_safely(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**classify(image), 'error': tf.where(image == BROKEN, 'The image is broken.', '')}

    functions = {
        'serving_default': classify_strictly,
        **({'serving_default_safe': classify_safely} if has_safe else {}),
    }
    spec = tf.TensorSpec([None], tf.string, 'image')
    signatures = {name: tf.function(each, [spec]).get_concrete_function() for name, each in functions.items()}
    tf.saved_model.save(tf.Module(), str(folder), signatures)


@pytest.fixture(scope='module')
def ports(tmp_path_factory) -> Iterator[dict[str, int]]:
    """A server with two versions, of which the older one is stable; its ports by protocol."""
    serving = tmp_path_factory.mktemp('serving')
    for number in (OLD, NEW):
        save_version(serving / str(number), has_safe=number == NEW)
    config = serving / 'models.config'
    config.write_text(f"""model_config_list {{ config {{
        name: "{MODEL_NAME}" base_path: "{serving}" model_platform: "tensorflow"
        model_version_policy {{ specific {{ versions: {OLD} versions: {NEW} }} }}
        version_labels {{ key: "stable" value: {OLD} }}
    }} }}""")
    ports = {'rest': find_free_port(), 'grpc': find_free_port()}
    command = [sys.executable, '-m', 'pipeline.server', f'--model_config_file={config}']
    command += [f'--rest_api_port={ports["rest"]}', f'--port={ports["grpc"]}']
    command += ['--allow_version_labels_for_unavailable_models', '--enable_batching']
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_loaded(f'http://127.0.0.1:{ports["rest"]}/v1/models/{MODEL_NAME}', process)
            yield ports
        finally:
            process.terminate()


def wait_until_loaded(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None
        try:
            states = requests.get(url, timeout=10).json().get('model_version_status', [])
        except requests.ConnectionError:
            states = []
        if [state['state'] for state in states] == ['AVAILABLE', 'AVAILABLE']:
            return
        time.sleep(0.2)
    pytest.fail(f'{url} is not available')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('asked', 'version'),
    [({'label': 'stable'}, OLD), ({'version': NEW}, NEW), ({}, NEW)],
    ids=['an older model', 'a version', 'the newest'],
)
@pytest.mark.parametrize('protocol', ['rest', 'grpc'])
def test_each_image_of_a_batch_gets_its_own_answer(protocol, asked, version, ports):
    with connect(f'127.0.0.1:{ports[protocol]}', grpc=protocol == 'grpc', **asked) as client:
        *right, broken, last = client.classify([b'3', b'1', b'9', BROKEN, b'4'])
    assert [(answer.class_name, answer.label) for answer in [*right, last]] == [
        *(('cat', 3), ('automobile', 1), ('truck', 9), ('deer', 4)),
    ]
    assert {answer.version for answer in [*right, last]} == {version}
    assert right[0].probabilities == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert isinstance(broken, Refusal)
    assert 'broken' in broken.reason


@pytest.mark.slow
@pytest.mark.parametrize('asked', [{'label': 'canary'}, {'version': 99}, {'model': 'other'}], ids=str)
@pytest.mark.parametrize('protocol', ['rest', 'grpc'])
def test_what_the_server_does_not_have_is_an_error(protocol, asked, ports):
    with (
        connect(f'127.0.0.1:{ports[protocol]}', grpc=protocol == 'grpc', **asked) as client,
        pytest.raises(ServerError, match='refuses a request with'),
    ):
        client.classify([b'3'])
