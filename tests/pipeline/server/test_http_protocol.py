"""Connections: nobody may hold one open with half a request's head, and half-closed ones get their answer."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from pipeline.server import http_protocol

ANSWERED = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    """The port of a server that answers everything with 204, and waits 0.3 s for a head."""
    monkeypatch.setattr(http_protocol, '_HEAD_TIMEOUT_S', 0.3)

    async def app(scope, receive, send) -> None:
        await send({'type': 'http.response.start', 'status': 204, 'headers': []})
        await send({'type': 'http.response.body'})

    config = uvicorn.Config(app, http=http_protocol.Protocol, log_level='critical', lifespan='off')
    server = uvicorn.Server(config)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize('half', [b'', b'GET / HT', b'GET / HTTP/1.1\r\nHost: x\r\n'])
def test_a_client_that_does_not_finish_a_head_is_disconnected(half, port):
    with socket.create_connection(('127.0.0.1', port), timeout=5) as connection:
        connection.sendall(half)
        assert connection.recv(1000) == b''


def test_so_is_one_that_does_not_finish_its_second_head(port):
    with socket.create_connection(('127.0.0.1', port), timeout=5) as connection:
        connection.sendall(ANSWERED)
        assert connection.recv(1000).startswith(b'HTTP/1.1 204')
        connection.sendall(b'GET / HT')
        assert connection.recv(1000) == b''


def test_a_client_that_closes_its_half_after_its_request_gets_the_answer(port):
    with socket.create_connection(('127.0.0.1', port), timeout=5) as connection:
        connection.sendall(ANSWERED)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000).startswith(b'HTTP/1.1 204')
        assert connection.recv(1000) == b''
