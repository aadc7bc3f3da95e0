"""The commands on a serving folder, as a user types them."""

import concurrent.futures
import http.server
import json
import re
import threading
import time

import pytest

from components.contract import DataContract
from components.data import cifar10
from components.errors import PipelineError
from components.onnx_model import OnnxReport
from components.serving import version_labels, versions
from components.serving.models_config import list_loaded, read_config
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


def test_versions_are_listed_with_what_is_known_about_them(folder, capsys):
    assert call(capsys, 'promote', 10, '--serving', folder) == (0, 'version 10 is stable\n', '')
    code, out, _ = call(capsys, 'versions', '--serving', folder)
    assert code == 0
    assert out.splitlines() == [
        '10  stable',
        '    not pushed by this pipeline',
        '20  not listed in models.config',
        '    accuracy 0.942 on 10,000 images, pushed 2026-01-02T03:04:05+00:00',
        '    run r1',
        '    data: archive cifar.tar.gz',
    ]


def describe(folder, number: int, **changes) -> None:
    """Makes a version with what the Pusher writes."""
    info = {
        'accuracy': 0.9,
        'images': 100,
        'pushed': '2026-01-02T03:04:05+00:00',
        'run': '20260102-030405',
        'pipeline': 'cifar10-sample',
        'data': {'source': {'kind': 'sample', 'name': 'seed 0'}},
        'settings': {'trainer': {'seed': 1, 'weights': 'none'}, 'sample': {'train': 300}},
    } | changes
    (folder / str(number) / 'assets.extra').mkdir(parents=True)
    (folder / str(number) / 'saved_model.pb').write_bytes(b'')
    (folder / str(number) / versions.INFO_FILE).write_text(json.dumps(info))


def test_a_version_shows_its_run_and_the_settings_that_differ_from_the_version_before(tmp_path):
    describe(tmp_path, 10)
    describe(tmp_path, 20, settings=None)
    describe(
        tmp_path,
        30,
        run='20260102-040506',
        settings={'trainer': {'seed': 2, 'weights': '/a/long/path/' * 5, 'head_units': [64, 32]}, 'sample': {}},
    )
    describe(tmp_path, 40, settings={'trainer': {'seed': 2, 'weights': '/a/long/path/' * 5, 'head_units': [64, 32]}})
    known = ['    accuracy 0.900 on 100 images, pushed 2026-01-02T03:04:05+00:00']
    known += ['    run 20260102-030405, pipeline cifar10-sample, log logs/20260102-030405.log']
    known += ['    data: embedded sample (drawn with seed 0)']
    assert serving.describe_versions(tmp_path) == [
        '10  older',
        *known,
        '20  older',
        *known,
        '30  older',
        known[0],
        known[1].replace('030405', '040506'),
        known[2],
        '    settings that differ from version 10: sample.train is unset,',
        '        trainer.head_units=[64, 32], trainer.seed=2,',
        '        trainer.weights=/a/long/path//a/long/path//a/long/path//...',
        '40  newest',
        *known,
        '    settings: the same as those of version 30',
    ]


def test_classes_are_shown_only_where_versions_differ_in_them(tmp_path):
    describe(tmp_path, 10)
    describe(tmp_path, 20, contract=cifar10.CONTRACT.to_dict())
    assert not any('classes (' in line for line in serving.describe_versions(tmp_path))
    describe(tmp_path, 30, contract=DataContract(('cat', 'cow', 'dog'), 256, False).to_dict())
    shown = [line for line in serving.describe_versions(tmp_path) if 'classes (' in line]
    assert [line[:19] for line in shown] == ['    10 classes (air'] * 2 + ['    3 classes (cat,']
    assert shown[-1] == '    3 classes (cat, cow, dog) at 256 pixels'


def test_a_version_with_an_onnx_model_says_how_well_it_agrees(tmp_path):
    describe(tmp_path, 10, onnx=None)
    describe(tmp_path, 20, onnx=OnnxReport(18, 0.999, 3e-6, 1000)._asdict())
    (said,) = re.findall(
        r'assets\.extra/model\.onnx .*', ' '.join(' '.join(serving.describe_versions(tmp_path)).split())
    )
    assert said.startswith(
        'assets.extra/model.onnx (opset 18) has the same label as the SavedModel for 99.90% of 1,000 val images, and '
        'probabilities that differ by at most 3e-06 settings: '
    )


def test_no_line_is_longer_than_80_columns(tmp_path):
    describe(tmp_path, 10)
    describe(tmp_path, 20, settings={'trainer': {f'setting_{number}': number for number in range(40)}})
    lines = serving.describe_versions(tmp_path)
    assert max(map(len, lines)) <= 80
    assert sum('setting_' in line for line in lines) > 10


def test_an_empty_folder_says_so(tmp_path, capsys):
    assert 'has no version yet' in call(capsys, 'versions', '--serving', tmp_path)[1]


def test_promote_rollback_and_prune(folder, capsys):
    call(capsys, 'promote', 10, '--serving', folder)
    code, out, _ = call(capsys, 'promote', 20, '--serving', folder)
    assert code == 0
    assert 'version 20 is listed in models.config, so that a server loads it; run the same command again' in out
    assert call(capsys, 'promote', 20, '--serving', folder)[1] == 'version 20 is stable\n'
    assert call(capsys, 'promote', 20, '--serving', folder)[1] == 'version 20 is stable already\n'
    assert (
        call(capsys, 'rollback', '--serving', folder)[1] == 'version 10 is stable again, and version 20 no longer is\n'
    )
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
    """A server that gives one answer of TensorFlow Serving's REST API per request, and repeats the last one."""
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
    monkeypatch.setattr(version_labels, '_POLL_S', 0.01)
    url, answers, asked = server
    answers += [(404, {'error': 'not found'}), make_status('LOADING'), make_status('AVAILABLE')]
    call(capsys, 'promote', 10, '--serving', folder)
    assert call(capsys, 'promote', 20, '--serving', folder, '--server', url)[1] == 'version 20 is stable\n'
    assert asked == ['/v1/models/cifar10/versions/20'] * 3


def test_a_server_that_never_loads_the_version_is_an_error_and_moves_no_label(folder, server, monkeypatch):
    monkeypatch.setattr(version_labels, '_POLL_S', 0.01)
    url, answers, _ = server
    answers.append(make_status('LOADING'))
    version_labels.promote(folder, 10, 'stable')
    assert version_labels.promote(folder, 20, 'stable') == 'listed'
    with pytest.raises(PipelineError, match=r'within 0 s \(last answer: LOADING\); no version label was moved'):
        version_labels.wait_until_loaded(folder, 20, url, timeout_s=0.05)
    assert versions.find_serving_version(folder).name == '10'


def test_a_push_is_not_held_up_by_a_promotion_that_waits_and_both_versions_are_loaded(tmp_path, server, monkeypatch):
    monkeypatch.setattr(version_labels, '_POLL_S', 0.01)
    url, answers, asked = server
    answers.append(make_status('LOADING'))
    for number in (10, 20, 30):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / 'saved_model.pb').write_bytes(b'')
    version_labels.promote(tmp_path, 10, 'stable')
    with concurrent.futures.ThreadPoolExecutor() as pool:
        promotion = pool.submit(version_labels.promote, tmp_path, 20, 'stable', url)
        try:
            wait_for(lambda: asked)
            pool.submit(version_labels.list_pushed, tmp_path, 30).result(timeout=10)
            assert not promotion.done()
            wait_for(lambda: list_loaded(read_config(tmp_path)) == [10, 20, 30])
        finally:
            answers.append(make_status('AVAILABLE'))
        assert promotion.result(timeout=10) == 'labelled'
    assert dict(read_config(tmp_path).version_labels) == {'stable': 20, 'previous': 10}


def test_a_version_that_is_removed_while_a_server_loads_it_ends_the_wait(tmp_path, server, monkeypatch):
    monkeypatch.setattr(version_labels, '_POLL_S', 0.01)
    url, answers, _ = server
    answers.append(make_status('LOADING'))
    with pytest.raises(PipelineError, match=r'Version 20 was removed from .* while a server was loading it'):
        version_labels.wait_until_loaded(tmp_path, 20, url)


def test_a_server_that_is_not_a_url_is_wrong_usage(folder, capsys):
    call(capsys, 'promote', 10, '--serving', folder)
    code, _, error = call(capsys, 'promote', 20, '--serving', folder, '--server', 'localhost:8501')
    assert code == 2
    assert error.startswith('error: --server takes a URL such as http://localhost:8501. Received: localhost:8501/v1')


def wait_for(condition, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
