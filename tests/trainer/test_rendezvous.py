"""Workers that wait for each other, without TensorFlow."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from components.errors import TrainingError
from tests.conftest import PROJECT
from trainer.rendezvous import (
    JOIN_TIMEOUT_S,
    POD_JOIN_TIMEOUT_S,
    Workers,
    choose_join_timeout,
    meet_workers,
    read_workers,
)


def find_addresses(count: int) -> tuple[str, ...]:
    """Addresses of free ports on loopback."""
    sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    addresses = tuple(f'127.0.0.1:{each.getsockname()[1]}' for each in sockets)
    for each in sockets:
        each.close()
    return addresses


def test_workers_are_numbered_from_the_chief_on():
    cluster = {'chief': ['a:1'], 'worker': ['b:1', 'c:1'], 'ps': ['d:1']}
    found = read_workers(json.dumps({'cluster': cluster, 'task': {'type': 'worker', 'index': 1}}))
    assert found == Workers(('a:1', 'b:1', 'c:1'), 2)
    assert found.count == 3


@pytest.mark.parametrize('tf_config', ['', '{}', '{"cluster": {"worker": ["a:1"]}}'])
def test_fewer_than_two_workers_are_no_cluster(tf_config):
    assert read_workers(tf_config).count == 1


@pytest.mark.parametrize(
    ('tf_config', 'reason'),
    [
        ('nonsense', 'Expecting value'),
        ('[]', 'list'),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "'type'"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}', 'the task is a ps'),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', 'worker 2 is not in'),
        ('{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}', "'b' is not HOST:PORT"),
    ],
)
def test_a_tf_config_that_describes_no_worker_is_refused(tf_config, reason):
    with pytest.raises(TrainingError, match=rf'TF_CONFIG does not describe a worker of a cluster \(.*{reason}'):
        read_workers(tf_config)


def test_workers_meet_in_whatever_order_they_start():
    addresses = find_addresses(3)
    errors: list[TrainingError] = []

    def meet(index: int) -> None:
        try:
            meet_workers(Workers(addresses, index), 20)
        except TrainingError as error:
            errors.append(error)
            return
        # TensorFlow listens at the address from here on.
        host, _, port = addresses[index].rpartition(':')
        with socket.create_server((host, int(port))):
            gone.wait(20)

    gone = threading.Event()
    threads = [threading.Thread(target=meet, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.7)  # so that the first have called in vain
    gone.set()
    for thread in threads:
        thread.join(20)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


def test_workers_that_do_not_come_are_named():
    addresses = find_addresses(3)
    with (
        socket.create_server(('127.0.0.1', int(addresses[0].rpartition(':')[2]))),
        pytest.raises(TrainingError) as raised,
    ):
        meet_workers(Workers(addresses, 1), 0.1)
    assert str(raised.value).startswith(
        f'1 of the 3 workers of TF_CONFIG did not answer within 0.1 s: {addresses[2]}. Start all of them'
    )


def test_a_port_that_is_in_use_is_named():
    addresses = find_addresses(2)
    with (
        socket.create_server(('127.0.0.1', int(addresses[0].rpartition(':')[2]))),
        pytest.raises(TrainingError, match=f'cannot listen at {re.escape(addresses[0])}, its own address'),
    ):
        meet_workers(Workers(addresses, 0), 0.1)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(number):
    addresses = find_addresses(2)
    script = f"""
import signal
from trainer.rendezvous import Workers, meet_workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
print('waiting', flush=True)
meet_workers(Workers({addresses!r}, 0), 60)
"""
    command = [sys.executable, '-c', script]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'waiting\n'
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(5) != 0


def test_pods_wait_longer_than_machines_that_people_start(monkeypatch):
    monkeypatch.delenv('KUBERNETES_SERVICE_HOST', raising=False)
    assert choose_join_timeout(None) == JOIN_TIMEOUT_S
    monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')
    assert choose_join_timeout(None) == POD_JOIN_TIMEOUT_S
    assert choose_join_timeout(5) == 5
