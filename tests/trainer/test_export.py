"""The SavedModel: its predictions, the memory they take, its size, and when it is not exported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.data import cifar10, sample
from components.errors import ExportError
from components.model_contract import read_model_contract
from tests.conftest import IMAGE_SIZE
from trainer import export
from trainer.config import EXPORT_FILE, ExportConfig
from trainer.dataset import EpochOrder, make_batches, read_split
from trainer.export import export_model, measure_agreement
from trainer.preprocessing import preprocess_images
from trainer.served_model import MICRO_BATCH, find_color_map, map_micro_batches

pytestmark = pytest.mark.slow

LOAD_WITH_TENSORFLOW_ONLY = """
import json, sys
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
pngs = [tf.io.encode_png(image).numpy() for image in images]
example = lambda png: tf.train.Example(features=tf.train.Features(feature={
    'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))})).SerializeToString()
examples = tf.constant([example(png) for png in pngs])
predictions = {
    'serving_default': model.signatures['serving_default'](image=tf.constant(pngs)),
    'serving_default_safe': model.signatures['serving_default_safe'](image=tf.constant(pngs)),
    'explain': model.signatures['explain'](image=tf.constant(pngs), label=tf.constant([-1] * len(pngs), tf.int64)),
    'serving_raw': model.signatures['serving_raw'](image=tf.constant(images)),
    'examples': model.signatures['examples'](examples=examples),
}
transformed = model.signatures['transform_features'](examples=examples)
with tf.compat.v1.Session(graph=tf.Graph()) as session:  # as TensorFlow Serving runs it
    signature = tf.compat.v1.saved_model.load(session, ['serve'], sys.argv[1]).signature_def['serving_default_safe']
    outputs = {key: info.name for key, info in signature.outputs.items()}
    served = session.run(outputs, {signature.inputs['image'].name: [*pngs[:33], b'no image']})
ours = [name for name in sys.modules if name.split('.')[0] in ('components', 'trainer', 'pipeline', 'keras', 'tfx')]
with open(sys.argv[1] + '/assets/labels.txt') as file:
    labels = file.read().split()
print(json.dumps({
    'probabilities': {name: outputs['probabilities'].numpy().tolist() for name, outputs in predictions.items()},
    'label': {name: outputs['label'].numpy().tolist() for name, outputs in predictions.items()},
    'class_name': [name.decode() for name in predictions['serving_default']['class_name'].numpy()],
    'dtypes': {key: value.dtype.name for key, value in predictions['serving_default'].items()},
    'served': {key: served[key][-2:].tolist() for key in ('label', 'probabilities')},
    'errors': [error.decode() for error in served['error']],
    'image_xf': list(transformed['image_xf'].shape),
    'signatures': sorted(model.signatures),
    'ours': ours,
    'labels': labels,
}))
"""


@pytest.fixture(scope='module')
def val(sample_data, transform_output):
    split = read_split([str(sample_data / 'val' / '*')], transform_output)
    return make_batches(split, EpochOrder(split.count, None), 8)


def export_as(model, transform_output, val, folder, **settings):
    out = folder / 'model'
    return out, export_model(model, transform_output, str(out), ExportConfig(**settings), val, cifar10.CONTRACT)


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
    """Sample images, uint8 [70, 32, 32, 3]: three micro-batches, the last one short."""
    random = np.random.default_rng(8)
    return np.stack([sample.draw_image(index % cifar10.CONTRACT.num_classes, random) for index in range(70)])


@pytest.fixture(scope='module')
def expected(model, many_images) -> np.ndarray:
    """Keras' predictions for them, float32 [70, 10]."""
    probabilities = model.predict(preprocess_images(tf.constant(many_images), IMAGE_SIZE), verbose=0)
    assert len(set(probabilities.argmax(axis=1))) > 1
    return probabilities


def make_example(encoded: bytes) -> bytes:
    feature = {features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def make_examples(images: np.ndarray) -> tf.Tensor:
    examples = [make_example(tf.io.encode_png(image).numpy()) for image in images]
    return tf.constant(examples, tf.string, shape=[len(images)])


@pytest.fixture(scope='module')
def loaded(exported):
    return tf.saved_model.load(str(exported))


@pytest.mark.parametrize('count', [0, 1, 33, 70])
def test_the_examples_signature_takes_any_number_of_images(loaded, many_images, expected, count):
    assert MICRO_BATCH in range(1, 33)
    outputs = loaded.signatures['examples'](examples=make_examples(many_images[:count]))
    assert outputs['probabilities'].shape == (count, 10)
    np.testing.assert_allclose(outputs['probabilities'], expected[:count], atol=1e-4)
    assert outputs['label'].numpy().tolist() == expected[:count].argmax(axis=1).tolist()
    assert outputs['class_name'].shape == (count,)


def test_micro_batches_are_bounded_and_in_order():
    sizes = []

    def count_rows(rows, again):
        tf.py_function(lambda size: sizes.append(int(size)), [tf.size(rows)], [])
        return tf.cast(rows, tf.float32)[:, tf.newaxis] * tf.ones([3]), rows + again

    rows = tf.range(2 * MICRO_BATCH + 5)
    specs = tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int32)
    floats, sums = tf.function(lambda rows: map_micro_batches(count_rows, (rows, rows), specs))(rows)
    assert floats[:, 2].numpy().tolist() == rows.numpy().tolist()
    assert sums.numpy().tolist() == (2 * rows).numpy().tolist()
    assert sizes == [MICRO_BATCH, MICRO_BATCH, 5]


BROKEN = {0: b'', 5: b'not an image', 34: b'\x89PNG\r\n\x1a\n'}  # by place; the last one is in the second micro-batch
NOT_DECODED = 'cannot be decoded: it is not a whole PNG, JPEG, GIF, BMP or WEBP file'


@pytest.fixture(scope='module')
def encoded(many_images) -> list[bytes]:
    return [tf.io.encode_png(image).numpy() for image in many_images]


def test_the_safe_signature_answers_for_all_images_but_the_broken_ones(loaded, encoded, expected):
    images = [BROKEN.get(place, image) for place, image in enumerate(encoded)]
    outputs = {key: value.numpy() for key, value in loaded.signatures['serving_default_safe'](image=images).items()}
    broken, whole = list(BROKEN), [place for place in range(70) if place not in BROKEN]
    assert set(outputs['error'][broken]) == {f'The image {NOT_DECODED}.'.encode()}
    assert set(outputs['error'][whole]) == {b''}
    assert set(outputs['label'][broken]) == {features.NO_LABEL}
    assert set(outputs['class_name'][broken]) == {b''}
    assert not outputs['probabilities'][broken].any()
    np.testing.assert_allclose(outputs['probabilities'][whole], expected[whole], atol=1e-4)
    assert outputs['label'][whole].tolist() == expected[whole].argmax(axis=1).tolist()


@pytest.mark.parametrize('images', [[], [b'x', b'y']])
def test_the_safe_signature_answers_without_any_image_that_can_be_decoded(loaded, images):
    outputs = loaded.signatures['serving_default_safe'](image=tf.constant(images, tf.string))
    assert outputs['label'].numpy().tolist() == [features.NO_LABEL] * len(images)
    assert outputs['probabilities'].shape == (len(images), 10)


def ask_to_explain(loaded, images, labels):
    return loaded.signatures['explain'](image=tf.constant(images, tf.string), label=tf.constant(labels, tf.int64))


def test_every_other_signature_names_the_image_that_cannot_be_decoded(loaded, encoded):
    images = [*encoded[:33], b'broken', b'broken']
    examples = tf.constant([make_example(image) for image in images])
    asks = (
        lambda: loaded.signatures['serving_default'](image=tf.constant(images)),
        lambda: loaded.signatures['examples'](examples=examples),
        lambda: loaded.signatures['transform_features'](examples=examples),
        lambda: ask_to_explain(loaded, images, [-1] * 35),
    )
    for ask in asks:
        with pytest.raises(tf.errors.InvalidArgumentError, match=f'image 33 of 35, counted from 0, {NOT_DECODED}'):
            ask()


def test_explain_shows_what_the_network_saw_and_where_it_looked(loaded, encoded, many_images, expected):
    outputs = ask_to_explain(loaded, encoded, [-1] * 70)
    np.testing.assert_allclose(outputs['probabilities'], expected, atol=1e-4)
    assert outputs['label'].numpy().tolist() == expected.argmax(axis=1).tolist()
    np.testing.assert_array_equal(outputs['seen'], many_images)  # the model's size is the images' size
    assert (outputs['heat_map'].shape, outputs['heat_map'].dtype) == ((70, 1, 1), tf.float32)
    assert set(outputs['heat_map'].numpy().ravel()) <= {0, 1}
    assert ask_to_explain(loaded, [], [])['seen'].shape == (0, IMAGE_SIZE, IMAGE_SIZE, 3)


@pytest.mark.parametrize(
    ('labels', 'sentence'),
    [
        ([-2], r'label must be -1 \(the predicted class\) to 9'),
        ([10], r'label must be -1 \(the predicted class\) to 9'),
        ([1, 2], 'image and label must have the same length'),
    ],
)
def test_explain_refuses_labels_that_do_not_fit(loaded, encoded, labels, sentence):
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        ask_to_explain(loaded, encoded[:1], labels)


@pytest.mark.parametrize('backbone', ['resnet50', 'vgg16', 'inception_v3', 'densenet121'])  # all three kinds
def test_the_colours_of_the_network_are_undone(backbone, images):
    """RGB is exact again, although the preprocessing swaps, shifts or scales the channels."""

    def transform(encoded):
        decoded = tf.stack([tf.io.decode_png(image, channels=3) for image in encoded])
        return preprocess_images(decoded, 64, backbone=backbone, resize='upsampling')

    inputs = transform([tf.io.encode_png(image) for image in images])
    np.testing.assert_array_equal(find_color_map(transform, (32, 32, 3)).undo(inputs), images.repeat(2, 1).repeat(2, 2))


def test_the_weights_are_stored_once_and_bfloat16_halves_them(exported, exported_bfloat16, model):
    for folder, weight_bytes in ((exported, 4), (exported_bfloat16[0], 2)):
        size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
        assert 0.98 < size / (weight_bytes * model.count_params()) < 1.06


def test_the_report_of_a_float32_export_has_no_agreement(exported):
    report = json.loads((exported / 'assets.extra' / EXPORT_FILE).read_text())
    assert report == {'precision': 'float32', 'agreement': None, 'count': 0}


def test_the_report_of_a_bfloat16_export_has_its_agreement_with_float32(exported_bfloat16, sample_data):
    out, report = exported_bfloat16
    written = json.loads((out / 'assets.extra' / EXPORT_FILE).read_text())
    assert written == report._asdict()
    assert written['precision'] == 'bfloat16'
    assert written['count'] == json.loads((sample_data / 'manifest.json').read_text())['counts']['val']
    assert 0.5 <= written['agreement'] <= 1


def test_a_bfloat16_export_predicts_nearly_what_keras_predicts(exported_bfloat16, many_images, expected):
    loaded = tf.saved_model.load(str(exported_bfloat16[0]))
    got = loaded.signatures['serving_raw'](image=tf.constant(many_images))['probabilities'].numpy()
    assert not np.array_equal(got, expected)
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def test_a_model_that_bfloat16_spoils_is_not_exported(model, transform_output, val, tmp_path, monkeypatch):
    """In this test the bfloat16 graph predicts a different class for one image in each batch of eight."""
    classes = np.arange(8) % cifar10.CONTRACT.num_classes

    def make_graph(model, precision, **options):
        predicted = classes.copy()
        predicted[0] += precision == 'bfloat16'
        return lambda images: tf.one_hot(predicted[: len(images)], cifar10.CONTRACT.num_classes)

    monkeypatch.setattr(export, 'InferenceGraph', make_graph)
    monkeypatch.setattr(export, 'ClassifierGraph', make_graph)
    dataset = tf.data.Dataset.from_tensors((np.zeros((8, 1)), np.zeros(8))).repeat(2)
    sentence = (
        r'The bfloat16 model predicts the same class as the float32 model for only 87\.50% of 16 val images, '
        r'and export\.min_agreement is 99\.50%; set export\.precision=float32\.'
    )
    with pytest.raises(ExportError, match=sentence):
        export_as(model, transform_output, dataset, tmp_path, precision='bfloat16')
    assert not list(tmp_path.iterdir())


def test_agreement_compares_classes_over_all_batches():
    dataset = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype='float32'), np.zeros(4))).batch(3)
    assert measure_agreement(lambda x: x * 3, lambda x: x, dataset) == (1.0, 4)
    assert measure_agreement(lambda x: x, lambda x: tf.roll(x, 1, axis=1), dataset) == (0.0, 4)
    last_differs = tf.constant([0, 1, 2, 0])
    assert measure_agreement(lambda x: tf.gather(x, last_differs, axis=1), lambda x: x, dataset) == (0.75, 4)
    assert measure_agreement(lambda x: x, lambda x: x, dataset.take(0)) == (0.0, 0)


@pytest.fixture(scope='module')
def predictions(exported, many_images, tmp_path_factory):
    """The outputs of the SavedModel in a new process that imports only TensorFlow."""
    folder = tmp_path_factory.mktemp('load')
    np.save(folder / 'images.npy', many_images)
    command = [sys.executable, '-c', LOAD_WITH_TENSORFLOW_ONLY, str(exported), str(folder / 'images.npy')]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def test_a_process_with_only_tensorflow_predicts_what_keras_predicts(predictions, expected):
    assert predictions['ours'] == []
    for signature in ('serving_default', 'serving_default_safe', 'serving_raw', 'examples', 'explain'):
        np.testing.assert_allclose(predictions['probabilities'][signature], expected, atol=1e-4)
        assert predictions['label'][signature] == expected.argmax(axis=1).tolist()


def test_signatures_have_the_documented_names_shapes_and_dtypes(predictions):
    assert predictions['signatures'] == [
        'class_names',
        'examples',
        'explain',
        'serving_default',
        'serving_default_safe',
        'serving_raw',
        'transform_features',
    ]
    assert predictions['dtypes'] == {'label': 'int64', 'class_name': 'string', 'probabilities': 'float32'}
    assert predictions['image_xf'] == [70, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert predictions['labels'] == list(cifar10.CONTRACT.class_names)
    labels = predictions['label']['serving_default']
    assert predictions['class_name'] == [cifar10.CONTRACT.class_names[label] for label in labels]


def test_clients_can_ask_for_the_class_names(exported):
    names = tf.saved_model.load(str(exported)).signatures[features.SIGNATURE_CLASS_NAMES]
    answer = names(label=tf.range(-1, 11, dtype=tf.int64))[features.OUTPUT_CLASS_NAME].numpy()
    assert [name.decode() for name in answer] == ['', *cifar10.CONTRACT.class_names, '']


def test_the_model_says_what_its_images_and_classes_are(exported):
    assert read_model_contract(exported) == cifar10.CONTRACT


def test_a_session_runs_the_safe_signature_as_tensorflow_serving_does(predictions, expected):
    assert predictions['errors'] == [''] * 33 + [f'The image {NOT_DECODED}.']
    assert predictions['served']['label'] == [expected[32].argmax(), features.NO_LABEL]
    np.testing.assert_allclose(predictions['served']['probabilities'], [expected[32], np.zeros(10)], atol=1e-4)
