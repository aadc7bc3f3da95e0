"""The `predict` command: what it writes, in which order, and how it ends; test_run.py asks a real model."""

import csv
import io
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from components.contract import DataContract
from components.data import cifar10
from components.errors import PipelineError, UsageError
from pipeline.__main__ import main
from pipeline.classifier import Classifier, Interface, RefusedError, Reply
from pipeline.image_sources import find_sources
from pipeline.predict import Output, make_output, predict
from pipeline.reporter import LineReporter
from tests.conftest import PROJECT, run_cli
from tests.pipeline.fake_model_servers import BROKEN, NEWEST, FakeServer

THREE = DataContract(('cow', 'cat', 'owl'), 256, is_square=False)
JSON = Output('json', 0, None)
PROBABILITIES = [0.04, 0.3, 0.01, 0.5, 0.02, 0.03, 0.05, 0.02, 0.02, 0.01]


class FakeModel:
    """Says of every image but BROKEN that it shows a cat, after a while; counts what it is asked for."""

    name, batch_size, concurrency = 'fake', 3, 2

    def __init__(self, contract: DataContract = cifar10.CONTRACT):
        self.contract, self.has_names = contract, True
        self.versions = [7]
        self.asked = self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    def describe(self) -> Interface:
        return Interface(frozenset({'serving_default', 'serving_default_safe'}), self.contract.image_size)

    def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
        with self.lock:
            self.asked += 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        time.sleep(random.random() * 0.02)
        with self.lock:
            self.busy -= 1
        errors = ['it is broken' if image == BROKEN else '' for image in images]
        count = len(images)
        label = self.contract.class_names.index('cat')
        probabilities = PROBABILITIES if self.contract == cifar10.CONTRACT else [0.2, 0.7, 0.1]
        outputs = {'label': [label] * count, 'class_name': ['cat'] * count, 'probabilities': [probabilities] * count}
        return Reply(version, {**outputs, 'error': errors})

    def name_classes(self, labels: Sequence[int]) -> list[str]:
        if not self.has_names:
            raise RefusedError('no such signature')
        return [self.contract.class_names[label] for label in labels]

    def close(self) -> None:
        pass


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Classifies files of a folder with a FakeModel; gives the output, what was said, and the failures."""
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str, output: Output = JSON, model: FakeModel | None = None):
        stream, said = io.StringIO(), io.StringIO()
        with Classifier(model or FakeModel()) as classifier:
            failures = predict(classifier, find_sources(list(arguments)), output, stream, LineReporter(said))
        return stream.getvalue(), said.getvalue(), failures

    return ask


def write_images(count: int, size: tuple[int, int] = (32, 32)) -> list[str]:
    names = [f'{number:03}.png' for number in range(count)]
    for name in names:
        Image.new('RGB', size).save(name)
    return names


def test_many_files_are_asked_for_in_batches_side_by_side_and_answered_in_their_order(ask):
    names, model = write_images(50), FakeModel()
    out, said, failures = ask(*names, model=model)
    assert [json.loads(line)['image'] for line in out.splitlines()] == names
    assert (model.asked, model.most_busy) == (17, 2)
    assert said == '    version 7 of fake answers\n'
    assert failures == []


def test_a_json_line_has_what_it_had_and_the_version(ask):
    (name,) = write_images(1)
    assert json.loads(ask(name)[0]) == {
        'image': name,
        'class_name': 'cat',
        'label': 3,
        'probabilities': PROBABILITIES,
        'version': 7,
    }


def test_top_names_the_most_probable_classes(ask):
    (name,) = write_images(1)
    line = json.loads(ask(name, output=Output('json', 2, None))[0])
    assert line['top'] == [
        {'class_name': 'cat', 'label': 3, 'probability': 0.5},
        {'class_name': 'automobile', 'label': 1, 'probability': 0.3},
    ]


def test_top_names_the_classes_of_the_model_and_no_more_than_it_has(ask):
    (name,) = write_images(1, (256, 256))
    line = json.loads(ask(name, output=Output('json', 3, None), model=FakeModel(THREE))[0])
    assert [(each['class_name'], each['label']) for each in line['top']] == [('cat', 1), ('cow', 0), ('owl', 2)]
    with pytest.raises(UsageError) as refusal:
        ask(name, output=Output('csv', 4, None), model=FakeModel(THREE))
    assert str(refusal.value) == '--top takes a number from 1 to 3, the number of classes of fake. Received: 4'


def test_without_the_names_of_the_classes_the_others_have_only_their_labels_and_that_is_said(ask):
    names, model = write_images(2, (256, 256)), FakeModel(THREE)
    model.has_names = False
    out, said, _ = ask(*names, output=Output('csv', 2, None), model=model)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row['class_name'], row['class_name_2'], row['label_2']) for row in rows] == [('cat', '', '0')] * 2
    assert said.count('fake does not say the names of its classes') == 1
    assert 'does not say' not in ask(*names, model=model)[1], 'the most probable class has its name'


def test_broken_and_missing_images_have_their_own_lines_and_sentences(ask):
    names = write_images(2)
    Path('broken.png').write_bytes(BROKEN)
    Path('folder.png').mkdir()
    sentences = [
        'broken.png cannot be classified: it is broken.',
        'missing.png cannot be read: No such file or directory.',
    ]
    out, _, failures = ask('broken.png', names[0], 'missing.png', names[1])
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line['image'] for line in lines] == ['broken.png', names[0], 'missing.png', names[1]]
    assert [line['error'] for line in lines if 'error' in line] == sentences == failures


def test_a_csv_table_has_a_header_the_most_probable_classes_and_the_columns_of_the_csv_file(ask):
    write_images(1)
    Path('list.csv').write_text('image,label\n000.png,dog\nmissing.png,cat\n')
    first, second = csv.DictReader(io.StringIO(ask('list.csv', output=Output('csv', 2, None))[0]))
    assert list(first.items()) == [
        ('image', '000.png'),
        *(('class_name', 'cat'), ('label', '3'), ('probability', '0.5')),
        *(('class_name_2', 'automobile'), ('label_2', '1'), ('probability_2', '0.3')),
        *(('version', '7'), ('error', ''), ('row.label', 'dog')),
    ]
    assert second['error'] == 'missing.png cannot be read: No such file or directory.'
    assert (second['class_name'], second['row.label']) == ('', 'cat')
    assert json.loads(ask('list.csv')[0].splitlines()[0])['row'] == {'label': 'dog'}


def test_it_says_from_which_image_on_a_different_version_answers(ask):
    model = FakeModel()
    model.versions, model.concurrency = [7, 8], 1
    assert ask(*write_images(6), model=model)[1].splitlines() == [
        '    version 7 of fake answers',
        '    version 8 of fake answers, from 003.png on',
    ]
    model.versions = [None]
    assert ask('000.png', model=model)[1] == '    fake answers; which version it is, is not known\n'


@pytest.mark.parametrize(
    ('size', 'warning'),
    [
        ((32, 32), ''),
        ((128, 16), ''),
        ((32, 129), '2 of 3 images are more than 4 times larger than the 32x32 pixels of the training images, '),
        ((15, 32), '2 of 3 images are more than 2 times smaller than the 32x32 pixels of the training images, '),
    ],
)
def test_it_warns_once_of_images_far_from_the_training_size(ask, size, warning):
    names = write_images(2, size)
    Image.new('RGB', (32, 32)).save('right.png')
    said = ask(*names, 'right.png')[1].splitlines()
    assert len(said) == (2 if warning else 1)
    assert said[-1].strip().startswith(warning or 'version 7')


@pytest.mark.parametrize(
    ('size', 'warning'),
    [
        ((256, 2000), ''),
        ((3000, 2000), ''),
        ((2000, 255), '2 of 3 images are smaller than the 256 pixels of the shorter side of the training images, '),
    ],
)
def test_photographs_are_nothing_to_warn_about_for_a_model_that_was_trained_with_some(ask, size, warning):
    names = write_images(2, size)
    Image.new('RGB', (256, 256)).save('right.png')
    said = ask(*names, 'right.png', model=FakeModel(THREE))[1].splitlines()
    assert len(said) == (2 if warning else 1)
    assert said[-1].strip().startswith(warning or 'version 7')


def test_files_of_a_folder_that_are_passed_over_are_named(ask):
    Path('photos').mkdir()
    Image.new('RGB', (32, 32)).save('photos/a.png')
    for number in range(7):
        Path(f'photos/{number}.txt').touch()
    out, said, failures = ask('photos')
    assert len(out.splitlines()) == 1
    assert 'names: photos/0.txt, photos/1.txt, photos/2.txt, photos/3.txt, photos/4.txt and 2 more\n' in said
    assert failures == []


def test_the_file_appears_whole_or_not_at_all(ask):
    names = write_images(4)
    Path('out.jsonl').write_text('before')

    class Failing(FakeModel):
        def ask(self, signature: str, images: Sequence[bytes]) -> Reply:
            if self.asked:
                raise PipelineError('the server is gone')
            return super().ask(signature, images)

    file = Path('out.jsonl').absolute()
    model = Failing()
    model.concurrency = 1
    with pytest.raises(PipelineError, match='the server is gone'):
        ask(*names, output=Output('json', 0, file), model=model)
    assert file.read_text() == 'before'
    assert ask(*names, output=Output('json', 0, file))[0] == ''
    assert [json.loads(line)['image'] for line in file.read_text().splitlines()] == names
    assert sorted(path.name for path in Path().iterdir()) == [*names, 'out.jsonl']


@pytest.mark.parametrize(
    ('top', 'file', 'message'),
    [
        (0, None, '--top takes a number from 1 to the number of classes. Received: 0'),
        (None, 'no/such/out.csv', '--out takes a file to write, in a folder that exists. Received: no/such/out.csv'),
        (None, '.', '--out takes a file'),
    ],
)
def test_a_wrong_output_is_refused(top, file, message):
    with pytest.raises(UsageError) as refusal:
        make_output('json', top, file)
    assert message in str(refusal.value)


@pytest.fixture
def server():
    """A server that speaks gRPC."""
    server = FakeServer('grpc')
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path):
    """40 images that a FakeServer knows."""
    for number in range(400):
        (tmp_path / f'{number:03}.png').write_bytes(b'%d' % (number % 10))
    return tmp_path


@pytest.mark.parametrize('protocol', ['rest', 'grpc'])
def test_a_server_is_asked_from_the_command_line(protocol, folder):
    server = FakeServer(protocol)
    (folder / '007.png').write_bytes(BROKEN)
    options = ['--grpc'] if protocol == 'grpc' else []
    command = ['predict', folder, '--server', f'127.0.0.1:{server.port}', '--label', 'stable', *options]
    answer = run_cli(*command)
    server.close()
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        f'    version 7 of 127.0.0.1:{server.port} answers',
        f'error: {folder}/007.png cannot be classified: it is broken.',
    ]
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line.get('label') for line in lines] == [None if n == 7 else n % 10 for n in range(400)]


@pytest.fixture(scope='module')
def certificate(tmp_path_factory) -> tuple[str, str]:
    """The files of a private key and of its own certificate, for localhost."""
    key, file = (str(tmp_path_factory.mktemp('tls') / name) for name in ('key.pem', 'certificate.pem'))
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', file]
    command += ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
    subprocess.run(command, check=True, capture_output=True)
    return key, file


@pytest.mark.parametrize(
    ('protocol', 'variable'), [('rest', 'REQUESTS_CA_BUNDLE'), ('grpc', 'GRPC_DEFAULT_SSL_ROOTS_FILE_PATH')]
)
def test_https_is_tls_with_a_certificate_that_has_to_be_trusted(protocol, variable, folder, certificate, monkeypatch):
    server = FakeServer(protocol, certificate=certificate)
    options = ['--grpc'] if protocol == 'grpc' else []
    command = ['predict', folder / '003.png', '--server', f'https://localhost:{server.port}', *options]
    monkeypatch.setenv(variable, certificate[1])
    answer = run_cli(*command)
    assert json.loads(answer.stdout)['label'] == 3, answer.stderr
    monkeypatch.delenv(variable)
    if protocol == 'rest':  # gRPC says the same, after all attempts
        answer = run_cli(*command)
        assert (answer.returncode, answer.stdout) == (1, '')
        assert 'CERTIFICATE_VERIFY_FAILED' in answer.stderr
    server.close()


def test_a_server_that_is_away_is_one_sentence(monkeypatch, folder, capsys):
    monkeypatch.setattr('pipeline.client_rest.FIRST_BACKOFF_S', 0.01)
    assert main(['predict', str(folder), '--server', '127.0.0.1:9']) == 1
    out, error = capsys.readouterr()
    assert (out, error.startswith('error: 127.0.0.1:9 does not answer (')) == ('', True)
    assert 'Connection refused' in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['cat.png', '--model', 'x', '--grpc'], 'error: --grpc says how to speak to a server; it needs --server'),
        (['http://x/cat.png', '--model', 'x'], 'error: IMAGE is the URL http://x/cat.png'),
        (['cat.png', '--server', 'localhost:x'], 'error: A server is HOST:PORT'),
        (['cat.png', '--server', 'localhost:1', '--model', 'x'], 'not allowed with argument'),
        (['cat.png'], 'one of the arguments --model --server is required'),
    ],
)
def test_wrong_usage_is_one_sentence(arguments, message):
    answer = run_cli('predict', *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr


def start_predict(folder: Path, server: FakeServer) -> subprocess.Popen[str]:
    command = [sys.executable, '-m', 'pipeline', 'predict', str(folder)]
    command += ['--server', f'127.0.0.1:{server.port}', '--grpc']
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, stdout=pipe, stderr=pipe, text=True)


def test_a_reader_that_leaves_early_has_its_lines_and_the_command_ends_quietly(server, folder):
    server.plan = [0.3] * 100
    with start_predict(folder, server) as process:
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait(30) == 0
    assert [line['label'] for line in lines] == [0, 1, 2]
    assert error == f'    version {NEWEST} of 127.0.0.1:{server.port} answers\n'
    assert len(server.asked) < 10


def test_ctrl_c_ends_with_a_sentence_and_what_was_written_is_whole(server, folder):
    server.plan = [0.0, *[3.0] * 100]
    with start_predict(folder, server) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        rest, error = process.stdout.read(), process.stderr.read()
    assert process.wait(30) == 130
    assert time.monotonic() - begin < 4
    labels = [json.loads(line)['label'] for line in [first, *rest.splitlines()]]
    assert len(labels) in (32, 64)  # whole batches; either of the first two is the one that has its answer at once
    assert labels == [n % 10 for n in range(len(labels))]
    assert error.splitlines()[-1] == 'interrupted; run the same command again'
    assert 'Traceback' not in error


def test_the_probabilities_have_a_class_each():
    assert len(PROBABILITIES) == cifar10.CONTRACT.num_classes
