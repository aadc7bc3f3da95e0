"""run_fn as TFX calls it: its outputs, and an attempt that continues another one."""

import dataclasses
import json
import shutil
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from components import features
from components.contract import BASE_MODEL_FILE
from components.data import cifar10
from components.errors import UsageError, WeightsError
from tests.conftest import IMAGE_SIZE
from trainer import train
from trainer.backbones import BACKBONES
from trainer.calibration import measure_calibration_error
from trainer.config import EXPORT_FILE, TrainerConfig
from trainer.dataset import read_split
from trainer.device import Device
from trainer.predictions import MAX_IMAGES
from trainer.preprocessing import preprocess_images
from trainer.train import HISTORY_FILE, KERAS_FILE, REPORT_FILE, list_phases, make_report, run_fn

CONFIG = TrainerConfig(
    image_size=IMAGE_SIZE,
    weights='none',
    head_units=(16,),
    batchnorm_momentum=0.8,
    learning_rate=1e-3,
    epochs=2,
    head_epochs=1,
    precision='float32',
    calibration='temperature',
)


# Settings that each backbone is trained with here, so that every choice is trained with some backbone.
CHOICES = {
    'resnet50': {'optimizer': 'sgd', 'resize': 'upsampling'},
    'resnet101': {'pooling': 'average', 'train_from': 'none', 'weight_average': 'ema'},
    'vgg16': {'train_from': 'all', 'label_smoothing': 0.1},
    'inception_v3': {'optimizer': 'adamw', 'mix': 'cutmix'},
    'densenet121': {'optimizer': 'adam', 'head_batchnorm': False},
}


def call_run_fn(
    config: TrainerConfig, sample_data, transform_graph, root, execution: int, base_model: Path | None = None
) -> None:
    """Calls run_fn as TFX does; every attempt has an execution number of its own."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))  # as ML Metadata stores it
    run_dir = root / 'Trainer' / 'model_run' / str(execution)
    run_dir.mkdir(parents=True)
    run_fn(
        types.SimpleNamespace(
            custom_config={'trainer': settings, 'export': {'precision': 'float32'}, 'source_digest': ''},
            transform_graph_path=str(transform_graph),
            schema_path=str(transform_graph / 'metadata' / 'schema.pbtxt'),
            train_files=[str(sample_data / 'train' / '*')],
            eval_files=[str(sample_data / 'val' / '*')],
            base_model=base_model and str(base_model),
            model_run_dir=str(run_dir),
            serving_model_dir=str(root / 'Trainer' / 'model' / str(execution)),
            hyperparameters=None,
        )
    )


@pytest.fixture(scope='module')
def training(sample_data, transform_graph, tmp_path_factory):
    """The folders of the artifacts model_run and model after a training in two phases."""
    root = tmp_path_factory.mktemp('training')
    call_run_fn(CONFIG, sample_data, transform_graph, root, 1)
    return root / 'Trainer' / 'model_run' / '1', root / 'Trainer' / 'model' / '1'


@pytest.mark.slow
def test_the_report_says_what_was_trained(training):
    report = json.loads((training[0] / REPORT_FILE).read_text())
    assert report['device'] == 'CPU (no GPU found)'
    assert report['precision'] == 'float32'
    assert report['cache'] == 'memory'
    assert report['epochs'] == 2
    assert report['best_epoch'] in (1, 2)
    assert report['images_per_s'] > 0
    assert 0 <= report['val_accuracy'] <= 1


@pytest.mark.slow
def test_the_history_has_every_epoch_of_both_phases(training):
    history = json.loads((training[0] / HISTORY_FILE).read_text())
    assert [(entry['phase'], entry['epoch']) for entry in history] == [('head', 1), ('training', 1), ('training', 2)]


@pytest.mark.slow
def test_logs_and_the_keras_file_are_in_model_run_and_nothing_else_is_left(training):
    run_dir, _ = training
    for phase in ('head', 'training'):
        assert list((run_dir / phase).glob('train/events.*'))
        assert list((run_dir / phase).glob('validation/events.*'))
    assert not list(run_dir.rglob('*.weights.h5'))
    assert list((run_dir.parents[1] / 'checkpoints').iterdir()) == []
    assert keras.models.load_model(run_dir / KERAS_FILE).output_shape == (None, 10)


@pytest.mark.slow
def test_the_export_is_the_model_of_the_best_epoch(training, images):
    report = json.loads((training[1] / 'assets.extra' / EXPORT_FILE).read_text())
    assert report['precision'] == 'float32'
    loaded = tf.saved_model.load(str(training[1]))
    expected = keras.models.load_model(training[0] / KERAS_FILE).predict(
        preprocess_images(tf.constant(images), IMAGE_SIZE), verbose=0
    )
    got = loaded.signatures[features.SIGNATURE_RAW](image=tf.constant(images))
    np.testing.assert_allclose(got[features.OUTPUT_PROBABILITIES], expected, atol=1e-4)


@pytest.mark.slow
def test_the_predictions_file_has_the_trained_models_predictions(training, sample_data):
    spec = {
        features.IMAGE_KEY: tf.io.FixedLenFeature([], tf.string),
        features.OUTPUT_PROBABILITIES: tf.io.FixedLenFeature([cifar10.CONTRACT.num_classes], tf.float32),
    }
    records = list(tf.data.TFRecordDataset(str(training[0] / features.PREDICTIONS_FILE)).as_numpy_iterator())
    kept = tf.io.parse_example(records, spec)
    val = json.loads((sample_data / 'manifest.json').read_text())['counts']['val']
    assert len(records) == min(val, MAX_IMAGES) > 1
    images = tf.stack([tf.io.decode_image(image) for image in kept[features.IMAGE_KEY]])
    model = keras.models.load_model(training[0] / KERAS_FILE)
    expected = model.predict(preprocess_images(images, IMAGE_SIZE), verbose=0)
    np.testing.assert_allclose(kept[features.OUTPUT_PROBABILITIES], expected, atol=1e-4)


@pytest.mark.slow
def test_the_keras_file_has_the_temperature_of_the_report(training, sample_data, transform_output):
    report = json.loads((training[0] / REPORT_FILE).read_text())
    val = read_split([str(sample_data / 'val' / '*')], transform_output)
    images = val.read_rows(tf.range(val.count, dtype=tf.int64), tf.constant(0, tf.int64))
    probabilities = keras.models.load_model(training[0] / KERAS_FILE).predict(images, verbose=0)
    assert report['temperature'] != pytest.approx(1, abs=0.01)
    assert report['val_calibration_error_before'] != pytest.approx(report['val_calibration_error'], abs=1e-3)
    assert measure_calibration_error(probabilities, val.labels) == pytest.approx(
        report['val_calibration_error'], abs=1e-3
    )


class Kill(Exception):
    pass


@pytest.mark.slow
def test_a_training_that_dies_before_its_export_is_finished_by_the_next_attempt(
    sample_data, transform_graph, training, tmp_path, monkeypatch
):
    def die(*arguments):
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(train.export, 'export_model', die)
        with pytest.raises(Kill):
            call_run_fn(CONFIG, sample_data, transform_graph, tmp_path, 1)
    monkeypatch.setattr(keras.Model, 'fit', lambda *arguments, **options: pytest.fail('trained again'))
    call_run_fn(CONFIG, sample_data, transform_graph, tmp_path, 2)
    models = [training[0] / KERAS_FILE, tmp_path / 'Trainer' / 'model_run' / '2' / KERAS_FILE]
    whole, resumed = (keras.models.load_model(model).get_weights() for model in models)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_epoch_returns_to_python_often_enough_to_show_how_far_it_has_come():
    assert [train.choose_steps_per_execution(steps) for steps in (1, 18, 141, 799, 800, 1407)] == [1, 1, 2, 15, 16, 16]


def test_the_head_phase_comes_first_and_only_when_asked_for():
    assert [phase.name for phase in list_phases(TrainerConfig())] == ['training']
    head, main = list_phases(TrainerConfig(head_epochs=2, head_learning_rate=0.1))
    assert (head.name, head.epochs, head.learning_rate) == ('head', 2, 0.1)
    assert (main.name, main.epochs, main.learning_rate) == ('training', 10, 2e-5)


def test_the_report_is_about_the_best_epoch_of_the_last_phase():
    def make_entry(phase, epoch, val_accuracy, images_per_s):
        numbers = {'accuracy': 0.5, 'val_accuracy': val_accuracy, 'val_loss': 1.0, 'images_per_s': images_per_s}
        return {'phase': phase, 'epoch': epoch, **numbers}

    history = [
        make_entry('head', 1, 0.9, 100),
        make_entry('training', 1, 0.4, 10),
        make_entry('training', 2, 0.6, 30),
        make_entry('training', 3, 0.5, 20),
    ]
    report = make_report(Device('CPU', 'float32', False), 'disk', history)
    assert (report.best_epoch, report.val_accuracy, report.epochs, report.images_per_s) == (2, 0.6, 3, 20)
    assert report.temperature is None


def test_missing_packages_end_the_trainer_before_it_trains(monkeypatch):
    monkeypatch.setattr('trainer.config.find_spec', lambda name: None)
    with pytest.raises(UsageError, match=r'export\.onnx=true needs packages that are not installed here: onnx, '):
        run_fn(types.SimpleNamespace(custom_config={'trainer': {}, 'export': {'onnx': True}}))


@pytest.mark.slow
@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_backbone_trains_an_epoch_exports_and_predicts(
    backbone, make_transform_graph, sample_data, images, tmp_path
):
    size = BACKBONES[backbone].smallest_size
    settings = {'image_size': size, 'batch_size': 16, 'epochs': 1, 'head_epochs': 0, 'calibration': 'none'}
    settings |= CHOICES[backbone]
    config = dataclasses.replace(CONFIG, backbone=backbone, **settings)
    call_run_fn(config, sample_data, make_transform_graph(backbone, size, config.resize), tmp_path, 1)
    served = tf.saved_model.load(str(tmp_path / 'Trainer' / 'model' / '1')).signatures['serving_raw'](
        image=tf.constant(images)
    )
    model = keras.models.load_model(tmp_path / 'Trainer' / 'model_run' / '1' / KERAS_FILE)
    preprocessed = preprocess_images(tf.constant(images), size, backbone=backbone, resize=config.resize)
    np.testing.assert_allclose(served['probabilities'], model.predict(preprocessed, verbose=0), atol=1e-4)
    np.testing.assert_allclose(tf.reduce_sum(served['probabilities'], axis=1), np.ones(10), rtol=1e-4)
    assert model.name == f'{backbone}_classifier'


@pytest.mark.slow
def test_a_warm_start_begins_with_the_weights_of_a_version_and_says_which(
    training, sample_data, transform_graph, tmp_path
):
    version = tmp_path / 'base' / 'Format-Serving'
    shutil.copytree(training[1], version)
    (version.parent / BASE_MODEL_FILE).write_text('{"version": "7"}')
    same = {'head_epochs': 0, 'epochs': 1, 'learning_rate': 1e-9, 'calibration': 'none'}  # nearly nothing is trained
    config = dataclasses.replace(CONFIG, **same, weights='/nowhere/weights.h5')
    call_run_fn(config, sample_data, transform_graph, tmp_path, 1, version)
    run_dir = tmp_path / 'Trainer' / 'model_run' / '1'
    assert json.loads((run_dir / REPORT_FILE).read_text())['base_version'] == '7'
    before, after = (keras.models.load_model(folder / KERAS_FILE) for folder in (training[0], run_dir))
    for one, other in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_warm_start_begins_with_the_configured_weights_while_nothing_is_serving(
    sample_data, transform_graph, tmp_path
):
    config = dataclasses.replace(CONFIG, weights='/nowhere/weights.h5')
    (tmp_path / BASE_MODEL_FILE).write_text('{"version": null}')
    with pytest.raises(WeightsError, match=r'/nowhere/weights\.h5 cannot be read'):
        call_run_fn(config, sample_data, transform_graph, tmp_path, 1, tmp_path / 'Format-Serving')
