"""Batch prediction: what is predicted, what becomes a dead letter, and what is not done twice."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyarrow import parquet

from components.data import cifar10, sample
from components.errors import PipelineError, UsageError
from components.places import locate
from pipeline.batch import inference, results, shards
from pipeline.batch.batch import Outcome, predict_batch
from pipeline.batch.shards import find_input
from pipeline.config import BeamConfig
from pipeline.local_model import choose_version, load_model
from tests.pipeline.server.small_model import save_version
from trainer.config import ExportConfig
from trainer.export import export_model

COUNT, SHARD = 50, 10
BROKEN = {'image_07': b'not an image', 'image_13': b'', 'image_31': b'\x89PNG\r\n\x1a\n cut'}


@pytest.fixture(scope='module')
def serving(model, transform_output, tmp_path_factory) -> Path:
    """A serving folder with one version of a small model."""
    folder = tmp_path_factory.mktemp('serving')
    config = ExportConfig(precision='float32', min_agreement=0)
    export_model(model, transform_output, str(folder / '7'), config, tf.data.Dataset.range(0), cifar10.CONTRACT)
    return folder


@pytest.fixture(scope='module')
def pngs() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    found = {}
    for index in range(COUNT):
        out = io.BytesIO()
        Image.fromarray(sample.draw_image(index % 10, random)).save(out, 'PNG')
        found[f'image_{index:02}'] = out.getvalue()
    return found


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, 'SHARD_IMAGES', SHARD)


def make_record(name: str, image: bytes) -> bytes:
    example = tf.train.Example()
    example.features.feature['id'].bytes_list.value.append(name.encode())
    example.features.feature['image'].bytes_list.value.append(image)
    return example.SerializeToString()


def write_records(file: Path, records: list[bytes], options: str = 'GZIP') -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file), options) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def records(pngs, tmp_path) -> Path:
    """Two files of TFRecords, of which one is not compressed; a few images are broken."""
    folder = tmp_path / 'records'
    examples = [make_record(name, BROKEN.get(name, image)) for name, image in pngs.items()]
    write_records(folder / 'train' / 'a.tfrecord.gz', examples[:30])
    write_records(folder / 'b.tfrecord', examples[30:], '')
    return folder


def run(serving: Path, source: Path | str, out: Path, form: str = 'parquet') -> Outcome:
    return predict_batch(
        choose_version(serving), find_input(str(source)), str(source), locate(str(out)), form, BeamConfig()
    )


def read_predictions(out: Path) -> dict[str, dict]:
    rows = [row for file in sorted(out.glob('predictions-*.parquet')) for row in parquet.read_table(file).to_pylist()]
    rows += [
        json.loads(line) for file in sorted(out.glob('predictions-*.jsonl')) for line in file.read_text().splitlines()
    ]
    assert len({row['id'] for row in rows}) == len(rows)
    return {row['id']: row for row in rows}


def read_letters(out: Path) -> dict[str, dict]:
    rows = [
        json.loads(line) for file in sorted(out.glob('dead-letters-*.jsonl')) for line in file.read_text().splitlines()
    ]
    return {row['id']: row for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize('form', ['parquet', 'jsonl'])
def test_there_are_as_many_probabilities_as_the_model_has_classes(form, pngs, tmp_path):
    save_version(tmp_path / 'serving', 1)
    write_records(tmp_path / 'a.tfrecord.gz', [make_record(name, image) for name, image in pngs.items()])
    run(tmp_path / 'serving', tmp_path / 'a.tfrecord.gz', tmp_path / 'out', form)
    found = read_predictions(tmp_path / 'out')
    assert found.keys() == pngs.keys()
    assert {(row['label'], row['class_name'], len(row['probabilities'])) for row in found.values()} == {
        (1, 'version 1', 3)
    }


@pytest.mark.slow
def test_every_image_has_the_label_that_predict_gives_and_every_broken_one_a_reason(serving, pngs, records, tmp_path):
    outcome = run(serving, records, tmp_path / 'out')
    found, letters = read_predictions(tmp_path / 'out'), read_letters(tmp_path / 'out')
    good = [name for name in pngs if name not in BROKEN]
    with load_model(serving) as classifier:
        answers = classifier.classify([pngs[name] for name in good])
    assert {name: found[name]['label'] for name in good} == {
        name: answer.label for name, answer in zip(good, answers, strict=True)
    }
    np.testing.assert_allclose(
        [found[name]['probabilities'] for name in good], [answer.probabilities for answer in answers], atol=1e-5
    )
    assert len({row['class_name'] for row in found.values()}) > 1
    assert found.keys() == set(good)
    assert letters.keys() == BROKEN.keys()
    assert letters['image_13'] == {
        'id': 'image_13',
        'source': 'train/a.tfrecord.gz',
        'position': 13,
        'reason': 'has no image in the feature image',
    }
    assert outcome[:4] == (COUNT - len(BROKEN), len(BROKEN), 0, 5)
    metadata = parquet.read_schema(tmp_path / 'out' / 'predictions-00000-of-00005.parquet').metadata
    assert json.loads(metadata[b'model'])['version'] == 7
    manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert (manifest['predicted'], manifest['dead_letters']) == (COUNT - len(BROKEN), len(BROKEN))


@pytest.mark.slow
def test_a_folder_of_images_gives_the_same_labels_as_records_and_what_cannot_be_read_is_a_dead_letter(
    serving, pngs, tmp_path
):
    folder = tmp_path / 'images'
    for index, (name, png) in enumerate(pngs.items()):
        file = folder / f'part{index % 2}' / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png)
    (folder / 'part0' / 'notes.txt').write_text('not an image, and not asked for')
    (folder / 'part1' / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    asked = find_input(str(folder / 'part0'))
    assert asked.images == COUNT // 2
    (folder / 'part1' / 'gone.png').unlink()
    run(serving, folder, tmp_path / 'out', 'jsonl')
    write_records(tmp_path / 'records' / 'a.gz', [make_record(name, png) for name, png in pngs.items()])
    run(serving, tmp_path / 'records' / '*.gz', tmp_path / 'out2')
    by_file = {Path(name).stem: row['label'] for name, row in read_predictions(tmp_path / 'out').items()}
    assert by_file == {name: row['label'] for name, row in read_predictions(tmp_path / 'out2').items()}
    assert len(by_file) == COUNT


@pytest.mark.slow
def test_a_stopped_prediction_goes_on_with_the_shards_that_are_missing(serving, records, tmp_path, monkeypatch):
    out = tmp_path / 'out'

    def write_two(out, shard, *arguments):
        if len(list((out / 'finished').glob('*'))) == 2:
            raise OSError('the disk is full')
        return results.write_shard(out, shard, *arguments)

    monkeypatch.setattr(inference, 'write_shard', write_two)
    with pytest.raises(PipelineError, match=r'disk is full.*What is finished is kept; run the same command again'):
        run(serving, records, out)
    before = {file: file.stat().st_mtime_ns for file in out.glob('*/*.json')}
    assert len(before) == 2
    # As a process that was killed while it wrote the third shard leaves it.
    third = ({f'{number:05}-of-00005' for number in range(5)} - {file.stem for file in before}).pop()
    (out / f'predictions-{third}.parquet').write_bytes(b'half')
    (out / f'dead-letters-{third}.jsonl').write_text('half')
    monkeypatch.setattr(inference, 'write_shard', results.write_shard)
    outcome = run(serving, records, out)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (outcome.finished_before, outcome.new, outcome.predicted) == (2, 3 * SHARD, COUNT - len(BROKEN))
    assert len(read_predictions(out)) == COUNT - len(BROKEN)
    assert read_letters(out).keys() == BROKEN.keys()
    assert run(serving, records, out).new == 0


@pytest.mark.slow
def test_damaged_files_lose_only_what_follows_the_damage(serving, pngs, tmp_path):
    folder = tmp_path / 'records'
    examples = [make_record(name, png) for name, png in pngs.items()]
    write_records(folder / 'a.tfrecord', [*examples[:12], b'\xff not a tf.Example', *examples[12:14]], '')
    write_records(folder / 'b.tfrecord', examples[14:30], '')
    damaged = (folder / 'b.tfrecord').read_bytes()
    (folder / 'b.tfrecord').write_bytes(damaged[: len(damaged) - 20])
    (folder / 'c.tfrecord.gz').write_bytes(b'')
    run(serving, folder, tmp_path / 'out')
    assert len(read_predictions(tmp_path / 'out')) == 14 + 15
    letters = read_letters(tmp_path / 'out')
    assert letters.keys() == {'a.tfrecord#12', 'b.tfrecord#15'}
    assert letters['a.tfrecord#12']['reason'] == 'is not a tf.Example'
    assert letters['b.tfrecord#15']['reason'].startswith('this and all that follow in the file cannot be read: ')


@pytest.mark.slow
def test_input_and_results_may_be_in_an_object_store(serving, pngs, make_bucket, tmp_path):
    bucket = locate(make_bucket('s3'))
    (bucket / 'in' / 'a.png').write_bytes(next(iter(pngs.values())))
    (bucket / 'in' / 'b.png').write_bytes(b'no image')
    outcome = run(serving, f'{bucket}/in', f'{bucket}/out')
    assert (outcome.predicted, outcome.dead_letters) == (1, 1)
    copy = tmp_path / 'copy'
    (bucket / 'out').download_to(copy)
    assert read_predictions(copy).keys() == {'a.png'}
    assert read_letters(copy).keys() == {'b.png'}


def test_results_of_something_else_are_never_overwritten(pngs, tmp_path):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    (images / 'a.png').write_bytes(next(iter(pngs.values())))
    (out / 'mine').mkdir(parents=True)
    version = tmp_path / '7'
    asked = find_input(str(images))

    def refuse(**changes) -> str:
        arguments = {'version': version, 'asked': asked, 'source': 'images', 'out': out, 'form': 'jsonl'} | changes
        with pytest.raises(UsageError) as refused:
            predict_batch(**arguments, beam=BeamConfig())
        return str(refused.value)

    assert refuse() == f'{out} holds something else than a batch prediction; choose a different --out.'
    (out / 'mine').rmdir()
    model = {'folder': str(version), 'version': 7}
    asked_before = {'model': model, 'input': 'images', 'input_digest': asked.digest, 'format': 'jsonl'}
    results.write_manifest(out, {'asked': asked_before, 'shards': 1})
    assert 'holds results of another format (jsonl)' in refuse(form='parquet')
    assert 'holds results of another input (images)' in refuse(source='photos')
    assert 'holds results of another model' in refuse(version=tmp_path / '8')
    (images / 'b.png').write_bytes(b'new')
    assert 'images has changed since' in refuse(asked=find_input(str(images)))
    (out / 'manifest.json').write_text('{')
    assert 'is not the manifest of a batch prediction' in refuse()


def test_an_input_without_images_or_with_both_kinds_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r'nowhere has nothing to predict; --input takes a folder of images'):
        find_input(str(tmp_path / 'nowhere'))
    for name in ('a.png', 'b.tfrecord'):
        (tmp_path / name).write_bytes(b'')
    with pytest.raises(UsageError, match='has 1 files of TFRecords and 1 images'):
        find_input(str(tmp_path))


def test_shards_are_the_same_whenever_they_are_cut(tmp_path):
    for index in range(SHARD * 2 + 3):
        (tmp_path / f'{index:03}.PNG').write_bytes(b'')
    (tmp_path / '.hidden').mkdir()
    (tmp_path / '.hidden' / 'a.png').write_bytes(b'')
    first, second = find_input(str(tmp_path)), find_input(str(tmp_path / '*.PNG'))
    assert first == second
    assert [len(shard.files) for shard in first.shards] == [SHARD, SHARD, 3]
    assert (first.images, first.shards[1].name) == (23, '00001-of-00003')
