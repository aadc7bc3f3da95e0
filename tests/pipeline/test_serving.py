"""The commands on a serving folder, as a user types them."""

import http.server
import json
import threading

import pytest

from components.errors import PipelineError
from components.serving import version_labels, versions
from pipeline import __main__, serving


@pytest.fixture
def folder(place):
    """Two versions, one with what the Pusher writes."""
    for number in (10, 20):
        (place / str(number) / 'assets.extra').mkdir(parents=True)
        (place / str(number) / 'saved_model.pb').write_bytes(b'')
    info = {'accuracy': 0.9415, 'images': 10_000, 'pushed': '2026-01-02T03:04:05+00:00', 'run': 'r1'}
    info['data'] = {'source': {'kind': 'archive', 'name': 'cifar.tar.gz'}}
    (place / '20' / versions.INFO_FILE).write_text(json.dumps(info))
    return place


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = __main__.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_versions_are_listed_with_what_is_known_of_them(folder, capsys):
    assert call(capsys, 'promote', 10, '--serving', folder) == (0, 'version 10 is stable\n', '')
    code, out, _ = call(capsys, 'versions', '--serving', folder)
    assert code == 0
    assert out.splitlines() == [
        '10  stable  pushed by other means',
        '20  -  accuracy 0.942 on 10,000 images  2026-01-02T03:04:05+00:00  run r1  data archive cifar.tar.gz',
    ]


def test_an_empty_folder_says_so(tmp_path, capsys):
    assert 'has no version yet' in call(capsys, 'versions', '--serving', tmp_path)[1]


def test_promote_rollback_and_prune(folder, capsys):
    call(capsys, 'promote', 10, '--serving', folder)
    code, out, _ = call(capsys, 'promote', 20, '--serving', folder)
    assert code == 0
    assert 'version 20 is listed, so that a server loads it; run the same again' in out
    assert call(capsys, 'promote', 20, '--serving', folder)[1] == 'version 20 is stable\n'
    assert call(capsys, 'promote', 20, '--serving', folder)[1] == 'version 20 is stable already\n'
    assert call(capsys, 'rollback', '--serving', folder)[1] == 'version 10 is stable again; 20 was\n'
    code, _, error = call(capsys, 'rollback', '--serving', folder)
    assert code == 2
    assert error.startswith('error: There is no version before 10 to go back to')
    assert call(capsys, 'prune', '--keep', 1, '--serving', folder)[1] == 'nothing to remove\n'


def test_a_mistake_is_one_sentence(folder, capsys):
    code, out, error = call(capsys, 'promote', 15, '--serving', folder)
    assert (code, out) == (2, '')
    assert error == f'error: {folder} has no version 15; there are: 10, 20.\n'


@pytest.fixture
def server():
    """TensorFlow Serving's REST answers, one a request; the last one again and again."""
    answers, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments):
            pass

    listening = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{listening.server_port}', answers, asked
    listening.shutdown()


def make_status(state: str) -> tuple[int, dict]:
    return 200, {'model_version_status': [{'version': '20', 'state': state, 'status': {}}]}


def test_promote_waits_until_the_server_has_the_version(folder, server, capsys, monkeypatch):
    monkeypatch.setattr(serving, '_POLL_S', 0.01)
    url, answers, asked = server
    answers += [(404, {'error': 'not found'}), make_status('LOADING'), make_status('AVAILABLE')]
    call(capsys, 'promote', 10, '--serving', folder)
    assert call(capsys, 'promote', 20, '--serving', folder, '--server', url)[1] == 'version 20 is stable\n'
    assert asked == ['/v1/models/cifar10/versions/20'] * 3


def test_a_server_that_never_loads_the_version_is_an_error_and_moves_no_label(folder, server, monkeypatch):
    monkeypatch.setattr(serving, '_POLL_S', 0.01)
    url, answers, _ = server
    answers.append(make_status('LOADING'))
    version_labels.promote(folder, 10, 'stable', None)
    with pytest.raises(PipelineError, match=r'within 0 s \(last answer: LOADING\); no label was moved'):
        version_labels.promote(folder, 20, 'stable', lambda: serving.wait_until_loaded(url, 20, timeout_s=0.05))
    assert versions.find_serving_version(folder).name == '10'
