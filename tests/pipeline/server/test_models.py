"""Which versions are loaded, in which order, with which labels, and what becomes of those that cannot be."""

import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import UsageError
from pipeline.server.faults import ServiceError
from pipeline.server.metrics import Metrics
from pipeline.server.models import ModelStore, State, check_config
from tests.pipeline.server.small_model import encode_image, save_version, write_warmups


@pytest.fixture
def serving(saved_versions, tmp_path):
    """A serving folder with the versions 1 and 2; 3 lies beside it, to be pushed."""
    folder = tmp_path / 'serving'
    folder.mkdir()
    for number in (1, 2):
        (folder / str(number)).symlink_to(saved_versions / str(number))
    return folder


@pytest.fixture(scope='module')
def saved_versions(tmp_path_factory):
    """Three saved versions."""
    folder = tmp_path_factory.mktemp('versions')
    for number in (1, 2, 3):
        save_version(folder, number)
    return folder


def configure(serving, policy: str = '', **labels: int) -> list:
    labelled = ' '.join(f'version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
    text = f'model_config_list {{ config {{ name: "small" base_path: "{serving}" {policy} {labelled} }} }}'
    return check_config(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()))


def only(*numbers: int) -> str:
    return 'model_version_policy { specific { ' + ' '.join(f'versions: {number}' for number in numbers) + ' } }'


@pytest.fixture
def said() -> list[str]:
    """What the store reports."""
    return []


@pytest.fixture
def make_store(said):
    def make(models, **options) -> ModelStore:
        store = ModelStore(models, said.append, Metrics(), **options)
        store.follow()
        return store

    return make


def list_available(store: ModelStore) -> list[int]:
    return [number for number, state in store.list_states('small').items() if state.state == State.AVAILABLE]


def ask(store: ModelStore, version: int | None = None, label: str | None = None) -> int:
    """Returns the number that the model itself answers with."""
    with store.lease('small', version, label) as found:
        (number,) = found.run('serving_raw', {'image': np.zeros([1, 8, 8, 3], np.uint8)})['label']
    return int(number)


def test_the_newest_version_is_loaded_and_takes_the_place_of_the_one_before(serving, saved_versions, make_store, said):
    store = make_store(configure(serving))
    assert list_available(store) == [2]
    assert ask(store) == 2
    (serving / '3').symlink_to(saved_versions / '3')
    store.follow()
    assert ask(store) == 3
    assert {number: state.state for number, state in store.list_states('small').items()} == {
        2: State.END,
        3: State.AVAILABLE,
    }
    assert [line.split(':')[0] for line in said] == [
        'small version 2 is available',
        'small version 3 is available',
        'small version 2 is unloaded',
    ]


@pytest.mark.parametrize(
    ('policy', 'expected'),
    [
        (only(1), [1]),
        (only(1, 2, 9), [1, 2]),
        ('model_version_policy { all {} }', [1, 2]),
        ('model_version_policy { latest { num_versions: 5 } }', [1, 2]),
    ],
)
def test_the_policy_decides_which_versions_are_loaded(policy, expected, serving, make_store):
    assert list_available(make_store(configure(serving, policy))) == expected


def test_a_label_is_moved_between_loaded_versions_only(serving, make_store):
    store = make_store(configure(serving, only(1)))
    with pytest.raises(UsageError, match='Request to assign label to version 2 of model small, which is not currently'):
        store.configure(configure(serving, only(1, 2), stable=2))
    store.follow()
    assert list_available(store) == [1], 'a refused configuration changes nothing'
    store.configure(configure(serving, only(1, 2), stable=1))
    store.follow()
    store.configure(configure(serving, only(1, 2), stable=2, previous=1))
    assert (ask(store, label='stable'), ask(store, label='previous')) == (2, 1)
    with pytest.raises(ServiceError, match='Unrecognized servable version label: canary'):
        ask(store, label='canary')


def test_only_a_new_label_may_come_before_its_version(serving, make_store):
    with pytest.raises(UsageError, match='not currently available'):
        make_store(configure(serving, only(1), stable=1))
    store = make_store(configure(serving, only(1), stable=1), allow_unavailable_labels=True)
    assert ask(store, label='stable') == 1
    store.configure(configure(serving, only(1), stable=1, canary=2))
    with pytest.raises(ServiceError) as caught:
        ask(store, label='canary')
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
    assert caught.value.message == 'Servable not found for request: Specific(small, 2)'
    with pytest.raises(UsageError, match='not currently available'):
        store.configure(configure(serving, only(1), stable=2))


def test_a_version_is_unloaded_only_when_its_last_request_is_answered(serving, saved_versions, make_store):
    store = make_store(configure(serving))
    (serving / '3').symlink_to(saved_versions / '3')
    with store.lease('small', None, None) as version:
        thread = threading.Thread(target=store.follow)
        thread.start()
        deadline = time.monotonic() + 20
        while store.list_states('small')[2].state != State.UNLOADING:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert ask(store) == 3, 'new requests get the new version meanwhile'
        version.run('serving_raw', {'image': np.zeros([1, 8, 8, 3], np.uint8)})
        assert thread.is_alive()
    thread.join(20)
    assert store.list_states('small')[2].state == State.END


def test_a_version_that_cannot_be_loaded_ends_with_its_error_and_the_old_one_goes_on(serving, make_store, said):
    store = make_store(configure(serving))
    (serving / '3').mkdir()
    (serving / '3' / 'saved_model.pb').write_bytes(b'\xff nonsense')
    store.follow()
    store.follow()
    state = store.list_states('small')[3]
    assert (state.state, state.code) == (State.END, grpc.StatusCode.UNKNOWN)
    assert state.message
    assert ask(store) == 2
    assert [line for line in said if 'version 3' in line] == [f'small version 3 cannot be loaded: {state.message}']


def test_a_version_is_available_only_after_its_warm_up(serving, tmp_path, make_store, said):
    (serving / '4').mkdir()
    folder = save_version(serving, 4)
    write_warmups(folder, [encode_image()] * 3)
    store = make_store(configure(serving))
    assert list_available(store) == [4]
    assert '3 warm-up requests in' in said[0]
    broken = save_version(serving, 5)
    write_warmups(broken, [encode_image(), b'not an image'])
    store.follow()
    state = store.list_states('small')[5]
    assert (state.state, state.code) == (State.END, grpc.StatusCode.INVALID_ARGUMENT), 'as in TensorFlow Serving'
    assert ask(store) == 4


def test_what_is_not_there_is_named(serving, make_store):
    store = make_store(configure(serving))
    for name, version, words in (
        ('other', None, 'Servable not found for request: Latest(other)'),
        ('small', 7, 'Servable not found for request: Specific(small, 7)'),
    ):
        with pytest.raises(ServiceError) as caught, store.lease(name, version, None):
            pass
        assert caught.value.message == words
    with pytest.raises(ServiceError, match='Could not find any versions of model other'):
        store.list_states('other')
    with pytest.raises(ServiceError, match='Could not find version 7 of model small'):
        store.list_states('small', 7)


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        ('config { name: "a" base_path: "/a" } config { name: "a" base_path: "/b" }', 'multiple times'),
        ('config { name: "a" base_path: "relative" }', 'absolute path'),
        ('config { name: "a" base_path: "/a" model_platform: "onnx" }', 'unsupported platform'),
    ],
)
def test_a_wrong_configuration_is_refused(config, words):
    parsed = text_format.Parse(f'model_config_list {{ {config} }}', model_server_config_pb2.ModelServerConfig())
    with pytest.raises(UsageError, match=words):
        check_config(parsed)
