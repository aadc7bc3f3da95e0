"""The client of model servers, over REST and gRPC: what it asks, what it asks again, and what it says of errors."""

import subprocess
import sys
import threading
import time

import grpc
import pytest

from components.contract import DataContract
from components.data import cifar10
from components.errors import UsageError
from pipeline.classifier import Prediction, Refusal
from pipeline.client import ATTEMPTS, ServerError, connect
from tests.conftest import PROJECT
from tests.pipeline.fake_model_servers import BROKEN, NEWEST, STABLE, FakeServer, find_free_port

CODE = grpc.StatusCode
both = pytest.mark.parametrize('protocol', ['rest', 'grpc'])


@pytest.fixture
def start():
    """Starts servers, and clients of them."""
    opened = []

    def start(protocol, *, deadline_s=10.0, label=None, version=None, **options):
        server = FakeServer(protocol, **options)
        where = f'127.0.0.1:{server.port}'
        client = connect(where, grpc=protocol == 'grpc', label=label, version=version, deadline_s=deadline_s)
        opened.extend((client, server))
        return client, server

    yield start
    for each in opened:
        each.close()


@both
def test_each_image_gets_its_class_and_the_version_in_the_order_of_the_request(protocol, start):
    client, server = start(protocol)
    answers = client.classify([b'3', b'1', b'9'])
    assert [answer.class_name for answer in answers] == ['cat', 'automobile', 'truck']
    assert [answer.label for answer in answers] == [3, 1, 9]
    assert answers[0].probabilities == pytest.approx([0.05] * 3 + [0.55] + [0.05] * 6)
    assert {answer.version for answer in answers} == {NEWEST}
    assert server.asked == [('serving_default_safe', 3)]


@both
@pytest.mark.parametrize(
    ('asked', 'version'), [({'label': 'stable'}, STABLE), ({'version': 5}, 5), ({}, NEWEST)], ids=str
)
def test_the_label_or_version_that_was_asked_for_answers(protocol, asked, version, start):
    client, _ = start(protocol, **asked)
    assert client.classify([b'3'])[0].version == version


@pytest.mark.parametrize(('label', 'version'), [('stable', STABLE), (None, NEWEST)])
def test_where_rest_answers_do_not_name_the_version_the_metadata_do(label, version, start):
    client, server = start('rest', label=label, names_version=False)
    assert [answer.version for image in (b'3', b'4') for answer in client.classify([image])] == [version] * 2
    assert server.connections == 1


@both
def test_a_broken_image_costs_no_other_its_answer_and_no_second_request(protocol, start):
    client, server = start(protocol)
    right, broken, last = client.classify([b'3', BROKEN, b'4'])
    assert (right.label, last.label) == (3, 4)
    assert broken == Refusal('cannot be classified: it is broken')
    assert len(server.asked) == 1


@both
def test_an_older_model_is_asked_for_ever_smaller_batches_until_the_broken_image_is_alone(protocol, start):
    client, server = start(protocol, has_safe=False)
    assert [answer.label for answer in client.classify([b'1', b'2'])] == [1, 2]
    assert server.asked == [('serving_default', 2)]
    *right, broken = client.classify([b'3', b'4', b'5', BROKEN])
    assert [answer.label for answer in right] == [3, 4, 5]
    assert broken == Refusal('cannot be classified: Unknown image file format.')
    assert server.asked[1:] == [('serving_default', count) for count in (4, 2, 2, 1, 1)]


@both
def test_an_older_version_may_take_the_place_of_the_first(protocol, start):
    client, server = start(protocol)
    client.classify([b'1'])
    server.has_safe = False
    assert [answer.label for answer in client.classify([b'3', b'4'])] == [3, 4]


THREE = DataContract(('cat', 'cow', 'größer'), 256, is_square=False)


@both
def test_the_model_is_asked_once_for_the_names_of_all_classes_and_says_to_which_size_it_resizes(protocol, start):
    client, server = start(protocol, contract=THREE)
    answers = client.classify([b'2', b'0'])
    assert [answer.class_name for answer in answers] == ['größer', 'cat']
    assert [client.name_classes(answer) for answer in answers] == [['cat', 'cow', 'größer']] * 2
    assert server.asked == [('serving_default_safe', 2), ('class_names', 3)]
    assert client.image_size == 256


@both
def test_many_names_are_asked_for_in_parts_that_a_server_takes(protocol, start):
    many = DataContract(tuple(f'class {number}' for number in range(100)), 256, is_square=False)
    client, server = start(protocol, contract=many, max_batch_size=16)
    (answer,) = client.classify([b'3'])
    assert client.name_classes(answer) == list(many.class_names)
    assert [count for name, count in server.asked if name == 'class_names' and count <= 16] == [12, 13] * 4


@both
def test_a_model_that_says_no_names_has_those_of_cifar10_or_none_that_are_known(protocol, start):
    client, server = start(protocol, has_names=False)
    (answer,) = client.classify([b'3'])
    assert client.name_classes(answer) == list(cifar10.CONTRACT.class_names)
    assert client.image_size == 32
    client, server = start(protocol, has_names=False, contract=THREE)
    for answer in client.classify([b'0', b'1']):
        assert client.name_classes(answer) is None
    assert server.asked == [('serving_default_safe', 2), *[('class_names', count) for count in (3, 1)]]


@both
def test_names_among_which_the_predicted_class_has_another_place_are_not_taken(protocol, start):
    turned = cifar10.CONTRACT._replace(class_names=cifar10.CONTRACT.class_names[::-1])
    client, _ = start(protocol, has_names=False, contract=turned)
    assert client.name_classes(client.classify([b'3'])[0]) is None


@both
def test_a_label_that_the_server_does_not_have_is_no_fault_of_the_images(protocol, start):
    client, server = start(protocol, label='canary')
    with pytest.raises(ServerError, match=r'refuses a request with .*: Unrecognized servable version label: canary'):
        client.classify([b'3', b'4'])
    assert server.asked == []


@both
def test_a_server_that_cannot_take_a_request_is_asked_again_on_the_same_connection(protocol, start):
    client, server = start(protocol)
    client.classify([b'1'])
    server.plan = [CODE.UNAVAILABLE, CODE.UNAVAILABLE]
    begin = time.monotonic()
    assert client.classify([b'3'])[0].label == 3
    assert 0.8 < time.monotonic() - begin < 8  # it waits longer after the second refusal
    assert len(server.asked) == 4
    assert server.connections == (1 if protocol == 'rest' else 0)


@both
def test_a_server_that_never_takes_it_is_left_after_some_attempts(protocol, start, monkeypatch):
    monkeypatch.setattr('pipeline.client_rest.FIRST_BACKOFF_S', 0.01)
    if protocol == 'grpc':
        from pipeline import client_grpc

        policy = client_grpc._RETRY['methodConfig'][0]['retryPolicy']
        monkeypatch.setitem(policy, 'initialBackoff', '0.01s')
    client, server = start(protocol)
    server.plan = [CODE.UNAVAILABLE] * 20
    with pytest.raises(ServerError, match=r'127\.0\.0\.1:\d+ (does not answer|refuses a request)'):
        client.classify([b'3'])
    assert len(server.asked) == ATTEMPTS


@both
@pytest.mark.parametrize('code', [CODE.INTERNAL, CODE.NOT_FOUND])
def test_another_error_is_not_asked_again(protocol, code, start):
    client, server = start(protocol)
    server.plan = [code]
    with pytest.raises(ServerError, match=r'refuses a request with .*: as the test has it'):
        client.classify([b'3'])
    assert len(server.asked) == 1


@both
def test_a_late_answer_is_not_asked_for_again(protocol, start):
    client, server = start(protocol, deadline_s=0.3)
    server.plan = [1.5]
    with pytest.raises(ServerError, match=r'had no answer after 0\.3 s and was not asked again'):
        client.classify([b'3'])
    assert len(server.asked) == 1


@both
def test_a_server_that_is_just_starting_is_waited_for(protocol):
    port, servers = find_free_port(), []
    timer = threading.Timer(0.3, lambda: servers.append(FakeServer(protocol, port=port)))
    with connect(f'127.0.0.1:{port}', grpc=protocol == 'grpc') as client:
        timer.start()
        try:
            assert client.classify([b'3'])[0].label == 3
        finally:
            timer.join()
            servers[0].close()


@both
def test_many_images_become_batches_that_a_server_takes(protocol, start):
    client, server = start(protocol)
    large = b'5' * 2_000_000
    assert [answer.label for answer in client.classify([b'1'] * 40 + [large, large, b'2'])] == [1] * 40 + [5, 5, 2]
    assert [count for _, count in server.asked] == [32, 9, 2]
    assert client.classify([]) == []


@pytest.mark.parametrize('server', ['localhost:port', 'ftp://localhost', 'localhost:8501/v1', 'http://', ''])
def test_what_is_no_address_is_refused(server):
    with pytest.raises(UsageError, match='A server is HOST:PORT'):
        connect(server)


def test_a_label_and_a_version_together_are_refused():
    with pytest.raises(UsageError, match='Received: stable and 3'):
        connect('localhost:8501', label='stable', version=3)


def run_python(code: str) -> None:
    subprocess.run([sys.executable, '-c', code], cwd=PROJECT, check=True, capture_output=True)


def test_the_client_does_not_import_tensorflow():
    run_python(
        'import sys\n'
        'from pipeline import client, client_grpc, client_rest\n'
        'client.connect("localhost", grpc=True).close()\n'
        'assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tfx", "pydantic")]'
    )


@pytest.mark.slow
def test_tensorflow_can_be_imported_after_the_client_and_has_the_same_messages():
    run_python(
        'from pipeline import client_grpc\n'
        'import tensorflow as tf\n'
        'request = client_grpc.predict_pb2.PredictRequest()\n'
        'request.inputs["image"].CopyFrom(tf.make_tensor_proto([b"1", b"2"]))\n'
        'assert tf.make_ndarray(request.inputs["image"]).tolist() == [b"1", b"2"]\n'
        'assert tf.keras.layers.Dense(3)(tf.ones([1, 2])).shape == (1, 3)'
    )


def test_answers_are_what_the_library_says_they_are(start):
    client, _ = start('grpc')
    (answer,) = client.classify([b'3'])
    assert isinstance(answer, Prediction)
    assert all(isinstance(each, float) for each in answer.probabilities)
