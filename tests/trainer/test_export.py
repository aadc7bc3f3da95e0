"""The SavedModel: what it answers, in which memory, how large it is, and when it is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.data import sample
from components.errors import ExportError
from tests.conftest import IMAGE_SIZE
from trainer import export
from trainer.config import EXPORT_FILE, ExportConfig
from trainer.dataset import EpochOrder, make_batches, make_image_rows, read_records
from trainer.export import MICRO_BATCH, export_model, map_micro_batches, measure_agreement
from trainer.preprocessing import preprocess_images

LOAD_WITH_TENSORFLOW_ALONE = """
import json, sys
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
pngs = [tf.io.encode_png(image).numpy() for image in images]
example = lambda png: tf.train.Example(features=tf.train.Features(feature={
    'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))})).SerializeToString()
examples = tf.constant([example(png) for png in pngs])
answers = {
    'serving_default': model.signatures['serving_default'](image=tf.constant(pngs)),
    'serving_raw': model.signatures['serving_raw'](image=tf.constant(images)),
    'examples': model.signatures['examples'](examples=examples),
}
transformed = model.signatures['transform_features'](examples=examples)
ours = [name for name in sys.modules if name.split('.')[0] in ('components', 'trainer', 'pipeline', 'keras', 'tfx')]
with open(sys.argv[1] + '/assets/labels.txt') as file:
    labels = file.read().split()
print(json.dumps({
    'probabilities': {name: answer['probabilities'].numpy().tolist() for name, answer in answers.items()},
    'label': {name: answer['label'].numpy().tolist() for name, answer in answers.items()},
    'class_name': [name.decode() for name in answers['serving_default']['class_name'].numpy()],
    'dtypes': {key: value.dtype.name for key, value in answers['serving_default'].items()},
    'image_xf': list(transformed['image_xf'].shape),
    'signatures': sorted(model.signatures),
    'ours': ours,
    'labels': labels,
}))
"""


@pytest.fixture(scope='module')
def val(sample_data, transform_output):
    records = read_records([str(sample_data / 'val' / '*')], transform_output)
    rows = make_image_rows(records, transform_output, 'none', 0)
    return make_batches(rows, records.labels, EpochOrder(len(records.labels), None), 8)


def export_as(model, transform_output, val, folder, **settings):
    out = folder / 'model'
    return out, export_model(model, transform_output, str(out), ExportConfig(**settings), val)


@pytest.fixture(scope='module')
def exported(model, transform_output, val, tmp_path_factory):
    return export_as(model, transform_output, val, tmp_path_factory.mktemp('float32'))[0]


@pytest.fixture(scope='module')
def exported_bfloat16(model, transform_output, val, tmp_path_factory):
    return export_as(
        model, transform_output, val, tmp_path_factory.mktemp('bf16'), precision='bfloat16', min_agreement=0.5
    )


@pytest.fixture(scope='module')
def many_images() -> np.ndarray:
    """uint8 [70, 32, 32, 3]: three micro-batches, the last one short."""
    random = np.random.default_rng(8)
    return np.stack([sample.draw_image(index % features.NUM_CLASSES, random) for index in range(70)])


@pytest.fixture(scope='module')
def expected(model, many_images) -> np.ndarray:
    """What Keras gives for them: float32 [70, 10]."""
    probabilities = model.predict(preprocess_images(tf.constant(many_images), IMAGE_SIZE), verbose=0)
    assert len(set(probabilities.argmax(axis=1))) > 1
    return probabilities


def make_examples(images: np.ndarray) -> tf.Tensor:
    def make_example(image):
        png = tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
        feature = {features.IMAGE_KEY: tf.train.Feature(bytes_list=png)}
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    return tf.constant([make_example(image) for image in images], tf.string, shape=[len(images)])


@pytest.fixture(scope='module')
def loaded(exported):
    return tf.saved_model.load(str(exported))


@pytest.mark.parametrize('count', [0, 1, 33, 70])
def test_the_examples_signature_takes_any_number_of_images(loaded, many_images, expected, count):
    assert MICRO_BATCH in range(1, 33)
    answer = loaded.signatures['examples'](examples=make_examples(many_images[:count]))
    assert answer['probabilities'].shape == (count, 10)
    np.testing.assert_allclose(answer['probabilities'], expected[:count], atol=1e-4)
    assert answer['label'].numpy().tolist() == expected[:count].argmax(axis=1).tolist()
    assert answer['class_name'].shape == (count,)


def test_micro_batches_are_bounded_and_in_order():
    sizes = []

    def count_rows(rows):
        tf.py_function(lambda size: sizes.append(int(size)), [tf.size(rows)], [])
        return tf.cast(rows, tf.float32)[:, tf.newaxis] * tf.ones([features.NUM_CLASSES])

    rows = tf.range(2 * MICRO_BATCH + 5)
    outputs = tf.function(lambda rows: map_micro_batches(count_rows, rows))(rows)
    assert outputs[:, 0].numpy().tolist() == rows.numpy().tolist()
    assert sizes == [MICRO_BATCH, MICRO_BATCH, 5]


def test_the_weights_are_stored_once_and_bfloat16_halves_them(exported, exported_bfloat16, model):
    for folder, weight_bytes in ((exported, 4), (exported_bfloat16[0], 2)):
        size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
        assert 0.98 < size / (weight_bytes * model.count_params()) < 1.06


def test_float32_is_not_measured(exported):
    report = json.loads((exported / 'assets.extra' / EXPORT_FILE).read_text())
    assert report == {'precision': 'float32', 'agreement': None, 'count': 0}


def test_bfloat16_says_how_far_it_agrees(exported_bfloat16, sample_data):
    out, report = exported_bfloat16
    written = json.loads((out / 'assets.extra' / EXPORT_FILE).read_text())
    assert written == report._asdict()
    assert written['precision'] == 'bfloat16'
    assert written['count'] == json.loads((sample_data / 'manifest.json').read_text())['counts']['val']
    assert 0.5 <= written['agreement'] <= 1


def test_bfloat16_answers_nearly_as_keras_does(exported_bfloat16, many_images, expected):
    loaded = tf.saved_model.load(str(exported_bfloat16[0]))
    got = loaded.signatures['serving_raw'](image=tf.constant(many_images))['probabilities'].numpy()
    assert not np.array_equal(got, expected)
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def test_a_model_that_bfloat16_spoils_is_not_exported(model, transform_output, val, tmp_path, monkeypatch):
    """Planted: the bfloat16 graph gives one image of a batch of eight another class."""
    classes = np.arange(8) % features.NUM_CLASSES

    def make_graph(model, precision, **options):
        answers = classes.copy()
        answers[0] += precision == 'bfloat16'
        return lambda images: tf.one_hot(answers[: len(images)], features.NUM_CLASSES)

    monkeypatch.setattr(export, 'InferenceGraph', make_graph)
    dataset = tf.data.Dataset.from_tensors((np.zeros((8, 1)), np.zeros(8))).repeat(2)
    sentence = (
        r'The bfloat16 model gives only 87\.50% of 16 val images the class that the float32 model gives them, '
        r'and export\.min_agreement is 99\.50%; set export\.precision=float32\.'
    )
    with pytest.raises(ExportError, match=sentence):
        export_as(model, transform_output, dataset, tmp_path, precision='bfloat16')
    assert not list(tmp_path.iterdir())


def test_agreement_is_of_classes_and_of_every_batch():
    dataset = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype='float32'), np.zeros(4))).batch(3)
    assert measure_agreement(lambda x: x * 3, lambda x: x, dataset) == (1.0, 4)
    assert measure_agreement(lambda x: x, lambda x: tf.roll(x, 1, axis=1), dataset) == (0.0, 4)
    last_differs = tf.constant([0, 1, 2, 0])
    assert measure_agreement(lambda x: tf.gather(x, last_differs, axis=1), lambda x: x, dataset) == (0.75, 4)
    assert measure_agreement(lambda x: x, lambda x: x, dataset.take(0)) == (0.0, 0)


@pytest.fixture(scope='module')
def answers(exported, many_images, tmp_path_factory):
    """What a fresh process with TensorFlow alone gets from the SavedModel."""
    folder = tmp_path_factory.mktemp('load')
    np.save(folder / 'images.npy', many_images)
    command = [sys.executable, '-c', LOAD_WITH_TENSORFLOW_ALONE, str(exported), str(folder / 'images.npy')]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def test_a_fresh_process_with_tensorflow_alone_predicts_what_keras_predicts(answers, expected):
    assert answers['ours'] == []
    for signature in ('serving_default', 'serving_raw', 'examples'):
        np.testing.assert_allclose(answers['probabilities'][signature], expected, atol=1e-4)
        assert answers['label'][signature] == expected.argmax(axis=1).tolist()


def test_signatures_have_the_documented_names_shapes_and_dtypes(answers):
    assert answers['signatures'] == ['examples', 'serving_default', 'serving_raw', 'transform_features']
    assert answers['dtypes'] == {'label': 'int64', 'class_name': 'string', 'probabilities': 'float32'}
    assert answers['image_xf'] == [70, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert answers['labels'] == list(features.CLASS_NAMES)
    assert answers['class_name'] == [features.CLASS_NAMES[label] for label in answers['label']['serving_default']]
