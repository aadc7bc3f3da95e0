"""A folder of one's own pictures becomes a served model, as docs/own-images.md says: two commands, and then a request.

Kubeflow's way with the same pictures is tests/kubeflow/test_kubeflow_run.py.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.contract import DataContract
from components.data.manifest import read_contract
from components.model_contract import read_model_contract
from components.serving.versions import find_newest_version, read_info
from pipeline.__main__ import main
from tests.conftest import run_cli
from tests.documents import PROJECT, list_commands
from tests.pictures import CLASSES, draw_picture, write_pictures

pytestmark = pytest.mark.slow

CONTRACT = DataContract(CLASSES, 256, False)
# Random weights, because nothing may be downloaded here, and a small image of the network.
SETTINGS = ('--set', 'trainer.weights=none', '--set', 'trainer.image_size=64', '--set', 'trainer.epochs=6')
NEW = 7  # pictures of each class that were not trained on, one of each form


def read_documented(begin: str) -> list[str]:
    """The arguments of the first command of docs/own-images.md that begins so."""
    texts = (each.text for each in list_commands() if each.where.startswith('docs/own-images.md'))
    return next(text for text in texts if text.startswith(f'python -m pipeline {begin}')).split()[3:]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder in which the two commands of the document were run on 60 pictures; with new pictures beside them."""
    folder = tmp_path_factory.mktemp('own')
    write_pictures(folder / 'pictures', 20)
    write_pictures(folder / 'new-pictures', NEW, first=100)
    for begin, more in (('data --images', ()), ('run --preset small', SETTINGS)):
        answer = run_cli(*read_documented(begin), *more, folder=folder)
        assert answer.returncode == 0, answer.stdout + answer.stderr
    (folder / 'run.txt').write_text(answer.stdout)
    return folder


@pytest.fixture(scope='module')
def version(folder) -> Path:
    return find_newest_version(folder / 'runs' / 'small' / 'serving')


def read_examples(data: Path, split: str = '*') -> dict[str, tf.train.Example]:
    """The records of a data folder by their id."""
    files = sorted(map(str, data.glob(f'{split}/*')))
    examples = [tf.train.Example.FromString(each.numpy()) for each in tf.data.TFRecordDataset(files, 'GZIP')]
    return {each.features.feature['id'].bytes_list.value[0].decode(): each for each in examples}


def test_new_pictures_of_every_form_get_the_right_class(folder, capsys):
    answer = run_cli(*read_documented('predict'), folder=folder)
    assert answer.returncode == 0, answer.stderr
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(lines) == NEW * len(CLASSES)
    wrong = [line['image'] for line in lines if Path(line['image']).parent.name != line['class_name']]
    assert not wrong
    assert len(lines[0]['probabilities']) == len(CLASSES)


def test_the_run_says_how_little_few_pictures_prove(folder):
    text = (folder / 'run.txt').read_text()
    assert '3 classes (night, snow, zebra) at 256 pixels' in text
    assert 'accuracy 1.000 (95% interval 0.610 to 1.000)' in ' '.join(text.split())


def test_classes_and_size_travel_from_the_data_to_the_version(folder, version):
    manifest = json.loads((folder / 'data' / 'pictures' / 'manifest.json').read_text())
    assert read_contract(manifest) == CONTRACT
    assert read_model_contract(version) == CONTRACT
    assert (version / 'assets' / 'labels.txt').read_text().split() == list(CLASSES)
    assert read_info(version)['contract'] == CONTRACT.to_dict()
    assert read_info(version)['data']['counts'] == manifest['counts']
    card = (version / 'assets.extra' / 'MODEL_CARD.md').read_text()
    assert all(name in card for name in CLASSES)
    assert 'CIFAR' not in card
    (page,) = (folder / 'runs' / 'small').rglob('report.html')
    assert 'airplane' not in page.read_text()
    signature = tf.saved_model.load(str(version)).signatures[features.SIGNATURE_RAW]
    pixels = tf.zeros([2, 256, 256, 3], tf.uint8)
    assert signature(image=pixels)[features.OUTPUT_PROBABILITIES].shape == (2, 3)


def test_training_evaluation_and_serving_see_the_same_picture(folder, version):
    """The stored record, a TFRecord of the original file, and the file sent to the server: the same inputs."""
    stored = read_examples(folder / 'data' / 'pictures')
    names = [f'{name}/{draw_picture(name, number)[0]}' for name in CLASSES for number in range(NEW)]
    original = [tf.train.Example() for _ in names]
    for name, example in zip(names, original, strict=True):
        example.features.feature['image'].bytes_list.value.append((folder / 'pictures' / name).read_bytes())
    signatures = tf.saved_model.load(str(version)).signatures
    seen = [
        signatures[features.SIGNATURE_TRANSFORM](
            examples=tf.constant([example.SerializeToString() for example in examples])
        )[features.IMAGE_XF_KEY].numpy()
        for examples in ([stored[name] for name in names], original)
    ]
    scale = seen[0].std()
    assert np.abs(seen[0] - seen[1]).mean() < 0.03 * scale, 'but for what JPEG changes'
    files = tf.constant([(folder / 'pictures' / name).read_bytes() for name in names])
    by_bytes = signatures[features.SIGNATURE_SERVING_DEFAULT](image=files)
    by_record = signatures[features.SIGNATURE_EXAMPLES](
        examples=tf.constant([stored[name].SerializeToString() for name in names])
    )
    np.testing.assert_array_equal(by_bytes[features.OUTPUT_LABEL], by_record[features.OUTPUT_LABEL])
    probabilities = [each[features.OUTPUT_PROBABILITIES].numpy() for each in (by_bytes, by_record)]
    assert np.abs(probabilities[0] - probabilities[1]).max() < 0.1


def test_the_same_pictures_in_a_csv_file_or_as_tfrecords_give_the_same_records(folder, tmp_path):
    """Those of the folder, byte for byte; as TFRecords those pictures that already have the stored form."""
    with (tmp_path / 'labels.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['image', 'label'])
        for path in sorted((folder / 'pictures').glob('*/*')):
            writer.writerow([path.relative_to(folder / 'pictures').as_posix(), path.parent.name])
    pictures = str(folder / 'pictures')
    arguments = ['data', '--csv', str(tmp_path / 'labels.csv'), '--images', pictures, '--out', str(tmp_path / 'csv')]
    assert main([*arguments, '--quiet']) == 0
    by_folder = read_examples(folder / 'data' / 'pictures')
    assert read_examples(tmp_path / 'csv') == by_folder
    for split in features.SPLITS:
        assert read_examples(tmp_path / 'csv', split) == read_examples(folder / 'data' / 'pictures', split)
    # What is stored is stored unchanged when it comes back as files, so TFRecords that hold such files are the same.
    for name, example in by_folder.items():
        path = (tmp_path / 'again' / name).with_suffix('.jpg')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(example.features.feature['image'].bytes_list.value[0])
    assert main(['data', '--images', str(tmp_path / 'again'), '--out', str(tmp_path / 'twice'), '--quiet']) == 0
    images = sorted(each.features.feature['image'].bytes_list.value[0] for each in by_folder.values())
    twice = read_examples(tmp_path / 'twice').values()
    assert sorted(each.features.feature['image'].bytes_list.value[0] for each in twice) == images


def test_every_command_of_the_document_has_a_test():
    notes = [each.note for each in list_commands() if each.where.startswith('docs/own-images.md')]
    assert all(note and (PROJECT / 'tests').exists() for note in notes)
