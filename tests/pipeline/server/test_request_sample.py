"""The request sample: what is kept of the requests, and what is never kept."""

import datetime
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from components import features
from components.errors import UsageError
from components.image_statistics import PROPERTIES
from pipeline.server import request_sample
from pipeline.server.request_sample import COUNTS_FILE, KEPT_DAYS, RequestSample, choose_slot, parse_line
from tests.conftest import PROJECT

DAY = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)


def encode_pixels(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'PNG')
    return out.getvalue()


def encode(number: int) -> bytes:
    """An image whose brightness is its number."""
    return encode_pixels(np.full((32, 32, 3), number, np.uint8))


IMAGES = [encode(number) for number in range(200)]


def ask(images, labels=None, version: int = 3, signature: str = 'serving_default', key: str = features.IMAGE_KEY):
    """A request and its answer; each image is said to be of the class that `labels` has for it."""
    labels = np.zeros(len(images), np.int64) if labels is None else np.asarray(labels)
    outputs = {'label': labels, 'probabilities': np.eye(10, dtype=np.float32)[labels]}
    inputs = images if isinstance(images, np.ndarray) else np.array(images, object)
    answer = SimpleNamespace(version=version, signature=signature, outputs=outputs, image_size=32)
    return SimpleNamespace(inputs={key: inputs}), answer


@pytest.fixture
def write(tmp_path):
    """Offers requests to a sample, one image each, and returns the lines of a day."""

    def run(numbers, folder=tmp_path / 'sample', day=DAY, version=3, **options):
        sample = RequestSample(folder, now=lambda: day, **options)
        for number in numbers:
            sample.offer(*ask([IMAGES[number % 200]], [number % 10], version))
        sample.close()
        return [parse_line(line) for line in (folder / f'{day.date()}.jsonl').read_text().splitlines()]

    return run


def read_counts(folder) -> dict:
    return json.loads((folder / COUNTS_FILE).read_text())


def test_a_line_says_everything_but_the_image(write, tmp_path):
    (asked,) = write([104])
    assert (asked.version, asked.signature, asked.label, asked.probabilities[4]) == (3, 'serving_default', 4, 1)
    assert asked.statistics == dict(zip(PROPERTIES, (104, 0, 0, 32, 32), strict=True))
    assert asked.time == '2026-11-27T12:00:00+00:00'
    assert asked.image == ''
    assert sorted(file.name for file in (tmp_path / 'sample').iterdir()) == ['.lock', '2026-11-27.jsonl', COUNTS_FILE]
    assert read_counts(tmp_path / 'sample') == {'2026-11-27': {'images': {'3': 1}, 'left_out': 0}}


def test_the_sample_is_bounded_and_every_request_is_as_likely_to_be_in_it(write, tmp_path):
    kept = np.zeros(200)
    for seed in range(20):
        lines = write(range(200), tmp_path / str(seed), size=20, seed=seed)
        assert len(lines) == 20
        assert read_counts(tmp_path / str(seed))['2026-11-27']['images'] == {'3': 200}
        kept[[int(line.statistics['brightness']) for line in lines]] += 1
    # Of 400 kept images 100 are of each quarter, with a standard deviation below 9.
    assert np.abs(kept.reshape(4, 50).sum(axis=1) - 100).max() < 35


def test_the_same_seed_gives_the_same_sample_also_when_the_server_is_started_again(write, tmp_path):
    once = write(range(200), tmp_path / 'once', size=20)
    write(range(77), tmp_path / 'twice', size=20)
    assert write(range(77, 200), tmp_path / 'twice', size=20) == once
    assert read_counts(tmp_path / 'twice') == read_counts(tmp_path / 'once')
    assert write(range(200), tmp_path / 'other', size=20, seed=1) != once


def test_algorithm_r_keeps_the_first_and_then_ever_fewer():
    slots = [choose_slot(0, 'day', index, 10) for index in range(1_000)]
    assert slots[:10] == list(range(10))
    later = [slot for slot in slots[10:] if slot is not None]
    assert set(later) <= set(range(10))
    assert 25 < len(later) < 70, 'about 10 ln(100) = 46'


def test_every_day_has_a_sample_of_its_own_and_old_days_go(write, tmp_path):
    folder = tmp_path / 'sample'
    days = [DAY + datetime.timedelta(days=number) for number in range(KEPT_DAYS + 2)]
    for day in days[:-1]:
        assert len(write(range(30), day=day, size=20, keeps_images=True)) == 20
    now = [days[-2]]
    sample = RequestSample(folder, now=lambda: now[0])
    now[0] = days[-1]  # midnight passes while the server runs
    sample.offer(*ask(IMAGES[:3], version=4))
    now[0] = DAY  # a clock that was put back
    sample.offer(*ask(IMAGES[:1], version=4))
    sample.close()
    kept = [str(day.date()) for day in days[-KEPT_DAYS:]]
    assert sorted(file.stem for file in folder.glob('*.jsonl')) == kept
    assert sorted(file.name for file in folder.iterdir() if file.is_dir()) == kept[:-1]
    counts = read_counts(folder)
    assert sorted(counts) == kept
    assert counts[kept[-1]] == {'images': {'4': 4}, 'left_out': 0}


def test_images_are_kept_only_on_request_and_no_more_than_lines(write, tmp_path):
    folder = tmp_path / 'sample'
    lines = write(range(200), size=20, keeps_images=True)
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob('*.png'))
    assert files == sorted(line.image for line in lines)
    assert {(folder / line.image).read_bytes() for line in lines} <= set(IMAGES)
    (folder / lines[0].image).with_suffix('.jpeg').write_bytes(b'left by a server that was killed')
    lines = write(range(200, 230), size=20)
    named = {line.image for line in lines if line.image}
    assert {str(file.relative_to(folder)) for file in (folder / '2026-11-27').iterdir()} == named
    assert len(named) < 20, 'an image goes when its line does'


def test_every_signature_that_classifies_is_sampled(tmp_path):
    import tensorflow as tf

    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in IMAGES[50:52]])
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
            )
        ).SerializeToString()
        for image in IMAGES[52:54]
    ]
    sample = RequestSample(tmp_path, now=lambda: DAY, keeps_images=True)
    sample.offer(*ask(pixels, signature='serving_raw'))
    sample.offer(*ask([*examples, b'no example'], signature='examples', key='examples'))
    asked, answer = ask([IMAGES[54], b'no image'], signature='serving_default_safe')
    answer.outputs['label'][1] = -1
    sample.offer(asked, answer)
    explained, answer = ask(IMAGES[:2], signature='explain')
    explained.inputs['label'] = np.array([-1, -1])
    sample.offer(explained, answer)
    sample.offer(SimpleNamespace(inputs={'examples': np.array(examples, object)}), SimpleNamespace(outputs={}))
    sample.close()
    lines = [parse_line(line) for line in (tmp_path / '2026-11-27.jsonl').read_text().splitlines()]
    assert [line.statistics['brightness'] for line in lines] == [50, 51, 52, 53, None, 54, None]
    assert [line.signature for line in lines] == ['serving_raw'] * 2 + ['examples'] * 3 + ['serving_default_safe'] * 2
    assert lines[-1].label == -1
    assert [line.image.rpartition('.')[2] for line in lines] == ['png'] * 4 + ['bin', 'png', 'bin']


def test_images_are_measured_at_the_size_of_the_version_that_answered(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sample = RequestSample(tmp_path, now=lambda: DAY)
    for version, image_size in ((3, 64), (4, 32), (5, 64)):
        asked, answer = ask([encode_pixels(noise)], version=version)
        answer.image_size = image_size
        sample.offer(asked, answer)
    sample.close()
    first, small, last = map(parse_line, (tmp_path / '2026-11-27.jsonl').read_text().splitlines())
    assert (first.version, small.version, last.version) == (3, 4, 5)
    assert first.statistics == last.statistics
    assert small.statistics['contrast'] < 0.8 * first.statistics['contrast'], 'resizing takes the noise away'


def test_a_request_never_waits_and_what_cannot_be_taken_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(request_sample, '_MAX_WAITING_BYTES', 100 * len(IMAGES[0]))
    go_on, describe = threading.Event(), request_sample.describe_rows

    def wait(rows, image_size):
        go_on.wait()
        return describe(rows, image_size)

    monkeypatch.setattr(request_sample, 'describe_rows', wait)
    sample = RequestSample(tmp_path, now=lambda: DAY)
    began = time.monotonic()
    for _ in range(30):
        sample.offer(*ask([IMAGES[0]] * 10))
    assert time.monotonic() - began < 2
    go_on.set()
    sample.close()
    assert read_counts(tmp_path)['2026-11-27'] == {'images': {'3': 300}, 'left_out': 200}
    assert len((tmp_path / '2026-11-27.jsonl').read_text().splitlines()) == 100


def test_a_disk_that_is_full_for_a_while_costs_nothing_but_a_warning(tmp_path, monkeypatch, caplog):
    written, write_text = threading.Event(), request_sample.write_text

    def fail(file, text):
        written.set()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(request_sample, '_WRITE_INTERVAL_S', 0.05)
    monkeypatch.setattr(request_sample, 'write_text', fail)
    sample = RequestSample(tmp_path, now=lambda: DAY)
    sample.offer(*ask(IMAGES[:5]))
    assert written.wait(10)
    time.sleep(0.3)
    monkeypatch.setattr(request_sample, 'write_text', write_text)
    sample.close()
    assert len((tmp_path / '2026-11-27.jsonl').read_text().splitlines()) == 5
    assert [record.message for record in caplog.records] == [
        'The request sample cannot be written: [Errno 28] No space left on device. It is tried again.'
    ]


_ENDLESS = """
import itertools, sys
from pathlib import Path
from tests.pipeline.server.test_request_sample import IMAGES, ask, request_sample
request_sample._WRITE_INTERVAL_S = 0.001
sample = request_sample.RequestSample(Path(sys.argv[1]))
for number in itertools.count():
    sample.offer(*ask(IMAGES[:20]))
    if number == 20:
        print('ready', flush=True)
"""


def test_a_killed_server_leaves_whole_lines_and_the_next_one_goes_on(tmp_path):
    for _ in range(2):
        command = [sys.executable, '-c', _ENDLESS, str(tmp_path)]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
            assert process.stdout.readline() == b'ready\n'
            while not list(tmp_path.glob('*.jsonl')):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        (file,) = tmp_path.glob('*.jsonl')
        lines = [parse_line(line) for line in file.read_text().splitlines()]
        assert 0 < len(lines) <= request_sample.SAMPLE_SIZE
    counted = sum(read_counts(tmp_path)[file.stem]['images'].values())
    RequestSample(tmp_path).close()
    assert sum(read_counts(tmp_path)[file.stem]['images'].values()) == counted
    assert not list(tmp_path.glob('.*.partial-*'))


def test_two_servers_cannot_write_one_sample(tmp_path):
    sample = RequestSample(tmp_path)
    with pytest.raises(UsageError, match='is written by a different server'):
        RequestSample(tmp_path)
    sample.close()
    RequestSample(tmp_path).close()


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match='cannot be written: '):
        RequestSample(tmp_path / 'file')
    (tmp_path / COUNTS_FILE).write_text('{"2026')
    with pytest.raises(UsageError, match=r'counts\.json is damaged .* remove it'):
        RequestSample(tmp_path)


def test_a_damaged_line_of_the_day_is_left_out(write, tmp_path, caplog):
    write(range(3))
    file = tmp_path / 'sample' / '2026-11-27.jsonl'
    file.write_text(file.read_text() + '{"time": "2026-\n')
    assert len(write([7])) == 4
    assert 'a damaged line was left out' in caplog.text
