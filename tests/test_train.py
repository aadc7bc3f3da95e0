import json
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.errors import DataError, TrainingError
from tests.conftest import IMAGE_SIZE
from trainer.config import TrainerConfig
from trainer.dataset import read_dataset
from trainer.model import build_backbone, build_model, compile_model
from trainer.train import KERAS_FILE, REPORT_FILE, fit_model, make_float32_copy, run_fn, set_up_device

CONFIG = TrainerConfig(
    image_size=IMAGE_SIZE, weights='none', head_units=(16,), batchnorm_momentum=0.8, learning_rate=1e-3, epochs=2
)


@pytest.fixture(scope='module')
def transform_output(transform_graph):
    return tft.TFTransformOutput(str(transform_graph))


def read_split(sample_data, transform_output, split, **options):
    return read_dataset([str(sample_data / split / '*')], transform_output, batch_size=16, **options)


def test_a_dataset_gives_preprocessed_batches_of_the_whole_split(sample_data, transform_output):
    batches = list(read_split(sample_data, transform_output, 'test'))
    assert [image.shape for image, _ in batches] == [(16, 32, 32, 3), (4, 32, 32, 3)]
    assert batches[0][0].dtype == tf.float32
    assert batches[0][1].dtype == tf.int64


def test_shuffling_is_seeded_and_anew_each_epoch(sample_data, transform_output):
    def read_labels(dataset):
        return [int(label) for _, labels in dataset for label in labels]

    first, again = (read_split(sample_data, transform_output, 'train', shuffle_seed=5) for _ in range(2))
    one, two = read_labels(first), read_labels(first)
    assert one != two
    assert sorted(one) == sorted(two)
    assert read_labels(again) == one


def test_an_empty_split_is_an_error(tmp_path, transform_output):
    with pytest.raises(DataError, match=r'No TFRecord file matches .*the split is empty'):
        read_dataset([str(tmp_path / '*')], transform_output, batch_size=4)


def test_a_loss_that_is_not_a_number_stops_with_a_sentence(tmp_path):
    config = TrainerConfig(learning_rate=1e38, epochs=2, batch_size=8)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(10), keras.layers.Softmax()])
    compile_model(model, config)
    rows = np.random.default_rng(0).normal(size=(64, 2)).astype('float32') * 1e3
    batches = tf.data.Dataset.from_tensor_slices((rows, np.arange(64) % 10)).batch(8)
    with pytest.raises(TrainingError, match=r'loss became NaN .* lower trainer\.learning_rate \(1e\+38\)'):
        fit_model(model, config, batches, batches, str(tmp_path))


def test_the_best_epochs_weights_are_kept(tmp_path):
    """The val labels fit the first epoch's outputs best when later epochs are trained on other labels."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(10, activation='softmax')])
    compile_model(model, TrainerConfig(learning_rate=1.0, epochs=4, batch_size=8))
    ones = np.ones((8, 2), 'float32')
    step = iter(range(100))

    def generate():
        epoch = next(step)
        yield ones, np.full(8, 0 if epoch == 0 else 1)

    train = tf.data.Dataset.from_generator(
        generate, output_signature=(tf.TensorSpec((8, 2), tf.float32), tf.TensorSpec((8,), tf.int64))
    )
    val = tf.data.Dataset.from_tensors((ones, np.zeros(8, 'int64')))
    config = TrainerConfig(learning_rate=1.0, epochs=4, batch_size=8)
    history, images_per_s = fit_model(model, config, train, val, str(tmp_path))
    assert history['val_accuracy'][0] == 1
    assert history['val_accuracy'][-1] == 0
    assert model.evaluate(val, verbose=0)[1] == 1
    assert images_per_s > 0


def test_without_a_gpu_the_device_says_so():
    assert set_up_device('auto') == ('CPU (no GPU found)', 'float32')


def test_a_mixed_precision_model_is_exported_in_float32():
    _, policy = set_up_device('mixed_bfloat16')
    assert policy == 'mixed_bfloat16'
    try:
        mixed = build_model(CONFIG, build_backbone(IMAGE_SIZE))
    finally:
        keras.config.set_dtype_policy('float32')
    assert mixed.get_layer('conv5_block1_1_conv').compute_dtype == 'bfloat16'
    assert mixed.get_layer(features.OUTPUT_PROBABILITIES).compute_dtype == 'float32'
    copy = make_float32_copy(mixed, CONFIG)
    assert {layer.compute_dtype for layer in copy.layers} == {'float32'}
    assert all(np.array_equal(a, b) for a, b in zip(mixed.get_weights(), copy.get_weights(), strict=True))


@pytest.fixture(scope='module')
def training(sample_data, transform_graph, tmp_path_factory):
    """run_fn as TFX calls it."""
    root = tmp_path_factory.mktemp('training')
    settings = {**CONFIG.__dict__, 'head_units': list(CONFIG.head_units)}
    run_fn(
        types.SimpleNamespace(
            custom_config={'trainer': settings, 'source_digest': ''},
            transform_graph_path=str(transform_graph),
            train_files=[str(sample_data / 'train' / '*')],
            eval_files=[str(sample_data / 'val' / '*')],
            model_run_dir=str(root / 'model_run'),
            serving_model_dir=str(root / 'model'),
        )
    )
    return root


@pytest.mark.slow
def test_the_report_says_what_was_trained(training):
    report = json.loads((training / 'model_run' / REPORT_FILE).read_text())
    assert report['device'] == 'CPU (no GPU found)'
    assert report['precision'] == 'float32'
    assert report['epochs'] == 2
    assert report['best_epoch'] in (1, 2)
    assert report['images_per_s'] > 0
    assert 0 <= report['val_accuracy'] <= 1


@pytest.mark.slow
def test_tensorboard_logs_and_the_keras_file_are_in_model_run(training):
    run_dir = training / 'model_run'
    assert list(run_dir.glob('train/events.*'))
    assert list(run_dir.glob('validation/events.*'))
    assert not list(run_dir.glob('*.weights.h5'))
    assert keras.models.load_model(run_dir / KERAS_FILE).output_shape == (None, 10)


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
def answers(training, tmp_path_factory):
    """What a fresh process with TensorFlow alone gets from the SavedModel for the test split."""
    from components import cifar10, sample

    folder = tmp_path_factory.mktemp('load')
    sample.write_sample_archive(folder / 'a.tar.gz', train=50, test=20, seed=8)
    images = cifar10.read_archive(folder / 'a.tar.gz')[-1].images
    np.save(folder / 'images.npy', images)
    command = [sys.executable, '-c', LOAD_WITH_TENSORFLOW_ALONE, str(training / 'model'), str(folder / 'images.npy')]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return images, json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_fresh_process_with_tensorflow_alone_predicts_what_the_trainer_predicts(answers, training):
    from trainer.preprocessing import preprocess_images

    images, got = answers
    assert got['ours'] == []
    model = keras.models.load_model(training / 'model_run' / KERAS_FILE)
    expected = model.predict(preprocess_images(tf.constant(images), IMAGE_SIZE), verbose=0)
    for signature in ('serving_default', 'serving_raw', 'examples'):
        np.testing.assert_allclose(got['probabilities'][signature], expected, atol=1e-4)
        assert got['label'][signature] == expected.argmax(axis=1).tolist()


@pytest.mark.slow
def test_signatures_have_the_documented_names_shapes_and_dtypes(answers):
    _, got = answers
    assert got['signatures'] == ['examples', 'serving_default', 'serving_raw', 'transform_features']
    assert got['dtypes'] == {'label': 'int64', 'class_name': 'string', 'probabilities': 'float32'}
    assert got['image_xf'] == [20, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert got['labels'] == list(features.CLASS_NAMES)
    assert got['class_name'] == [features.CLASS_NAMES[label] for label in got['label']['serving_default']]


@pytest.mark.slow
def test_the_saved_model_holds_every_variable_once(training):
    shapes = [shape for _, shape in tf.train.list_variables(str(training / 'model' / 'variables' / 'variables'))]
    model = keras.models.load_model(training / 'model_run' / KERAS_FILE)
    assert sum(np.prod(shape) for shape in shapes if shape) == pytest.approx(model.count_params(), rel=1e-3)
