"""The ONNX model: what it predicts in two runtimes, what it says about itself, and when it is not written."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import tensorflow as tf

from components import features
from components.contract import DataContract
from components.data import cifar10, sample
from components.errors import ExportError, UsageError
from components.onnx_model import ONNX_FILE, ONNX_REPORT_FILE, OnnxReport, read_onnx_report
from tests.conftest import IMAGE_SIZE
from trainer import config as trainer_config, onnx_export
from trainer.config import ExportConfig, TrainerConfig
from trainer.dataset import EpochOrder, make_batches, read_split
from trainer.export import export_model
from trainer.onnx_export import CLASS_NAMES_KEY, OPSET, compare_models, export_onnx, preprocess_for_onnx
from trainer.preprocessing import preprocess_images

CONFIG = TrainerConfig(image_size=IMAGE_SIZE)


@pytest.fixture(scope='module')
def exported(model, transform_output, sample_data, tmp_path_factory):
    """The folder of a SavedModel with its ONNX model, and the report."""
    out = tmp_path_factory.mktemp('onnx') / 'model'
    val = read_split([str(sample_data / 'val' / '*')], transform_output)
    config = ExportConfig(onnx=True)
    batches = make_batches(val, EpochOrder(val.count, None), 8)
    export_model(model, transform_output, str(out), config, batches, cifar10.CONTRACT)
    return out, export_onnx(model, CONFIG, config, cifar10.CONTRACT, val.encoded, str(out))


@pytest.fixture(scope='module')
def many_images() -> np.ndarray:
    """Sample images, uint8 [33, 32, 32, 3]."""
    random = np.random.default_rng(8)
    return np.stack([sample.draw_image(index % cifar10.CONTRACT.num_classes, random) for index in range(33)])


@pytest.fixture(scope='module')
def expected(model, many_images) -> np.ndarray:
    """Keras' predictions for them, float32 [33, 10]."""
    return model.predict(preprocess_images(tf.constant(many_images), IMAGE_SIZE), verbose=0)


@pytest.fixture(scope='module')
def session(exported):
    return onnxruntime.InferenceSession(exported[0] / ONNX_FILE, providers=['CPUExecutionProvider'])


@pytest.mark.slow
@pytest.mark.parametrize('count', [0, 1, 33])
def test_onnx_runtime_predicts_for_any_number_of_images_what_keras_predicts(session, many_images, expected, count):
    outputs = [features.OUTPUT_LABEL, features.OUTPUT_PROBABILITIES]
    label, probabilities = session.run(outputs, {features.IMAGE_KEY: many_images[:count]})
    np.testing.assert_allclose(probabilities, expected[:count], atol=1e-4)
    assert (label.dtype, label.tolist()) == (np.int64, expected[:count].argmax(axis=1).tolist())


@pytest.mark.slow
def test_another_runtime_predicts_the_same(exported, many_images, expected):
    compiled = openvino.Core().compile_model(exported[0] / ONNX_FILE, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    outputs = compiled({features.IMAGE_KEY: many_images})
    np.testing.assert_allclose(outputs[features.OUTPUT_PROBABILITIES], expected, atol=1e-4)
    assert outputs[features.OUTPUT_LABEL].tolist() == expected.argmax(axis=1).tolist()


@pytest.mark.slow
def test_the_onnx_model_says_its_input_its_classes_and_its_opset(exported, session):
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == (features.IMAGE_KEY, 'tensor(uint8)', [32, 32, 3])
    assert {each.name: each.type for each in session.get_outputs()} == {
        features.OUTPUT_LABEL: 'tensor(int64)',
        features.OUTPUT_PROBABILITIES: 'tensor(float)',
    }
    names = json.loads(session.get_modelmeta().custom_metadata_map[CLASS_NAMES_KEY])
    assert names == list(cifar10.CONTRACT.class_names)
    assert {each.domain: each.version for each in onnx.load(exported[0] / ONNX_FILE).opset_import}[''] == OPSET


@pytest.mark.slow
def test_the_report_is_written_beside_the_onnx_model(exported, sample_data):
    out, report = exported
    assert read_onnx_report(out) == report
    assert (report.opset, report.agreement) == (OPSET, 1.0)
    assert 0 < report.largest_difference < 1e-4
    assert report.images == json.loads((sample_data / 'manifest.json').read_text())['counts']['val']


@pytest.mark.parametrize('resize', ['bilinear', 'stretch'])
def test_smaller_inputs_are_smoothed_as_in_training(resize):
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), np.uint8))
    config = TrainerConfig(image_size=32, resize=resize)
    expected = preprocess_images(images, 32, resize=resize)
    np.testing.assert_allclose(preprocess_for_onnx(images, config), expected, atol=1e-3)


@pytest.mark.slow
def test_images_that_are_larger_than_the_input_and_any_classes_are_converted(model):
    """Of the sizes and classes of one's own pictures, for which the resizing is other operations."""
    contract = DataContract(tuple(f'class {number}' for number in range(10)), 50, False)
    converted = onnx_export.convert_model(model, CONFIG, contract)
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), np.uint8)
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=['CPUExecutionProvider'])
    (probabilities,) = session.run([features.OUTPUT_PROBABILITIES], {features.IMAGE_KEY: images})
    inputs = preprocess_images(tf.constant(images), IMAGE_SIZE)
    np.testing.assert_allclose(probabilities, model.predict(inputs, verbose=0), atol=1e-4)


@pytest.mark.slow
def test_an_operation_that_onnx_has_not_is_an_error_of_one_sentence(model, monkeypatch):
    """tf2onnx itself leaves such an operation in its result, and says nothing."""

    def smooth(images, config):
        return tf.image.resize(tf.cast(images, tf.float32), [IMAGE_SIZE, IMAGE_SIZE], antialias=True)

    monkeypatch.setattr(onnx_export, 'preprocess_for_onnx', smooth)
    sentence = r'cannot be converted to ONNX \(.*ScaleAndTranslate.*\); set export\.onnx=false\.$'
    with pytest.raises(ExportError, match=sentence):
        onnx_export.convert_model(model, CONFIG, DataContract(('a', 'b'), 50, True))


def test_a_model_that_onnx_runtime_refuses_is_an_error_of_one_sentence():
    sentence = r'^ONNX Runtime cannot load the ONNX model \(.+\); set export\.onnx=false\.$'
    with pytest.raises(ExportError, match=sentence):
        onnx_export._read_onnx(onnx.ModelProto(ir_version=8).SerializeToString(), CONFIG, cifar10.CONTRACT)


LABELS = np.arange(4)
SURE = np.eye(4, dtype=np.float32)


def predict(labels, probabilities):
    """A model that gives these answers for the images b'0' to b'3'."""

    def answer(encoded):
        places = [int(each) for each in encoded.numpy()]
        return labels[places], probabilities[places]

    return answer


ENCODED = tf.constant([b'0', b'1', b'2', b'3'])
UNSURE = np.float32([[0.75, 0.25, 0, 0], *SURE[1:]])


@pytest.mark.parametrize(
    ('labels', 'probabilities', 'agreement', 'difference'),
    [
        (LABELS, SURE, 1.0, 0.0),
        (LABELS, UNSURE, 1.0, 0.25),
        (np.int64([0, 1, 2, 0]), SURE, 0.75, 0.0),
        (LABELS, SURE * np.float32([1, 1, 1, np.nan]), 1.0, 1.0),
    ],
    ids=['the same', 'less sure', 'another label', 'not a number'],
)
def test_labels_and_probabilities_are_compared_over_all_batches(
    labels, probabilities, agreement, difference, monkeypatch
):
    monkeypatch.setattr(onnx_export, 'BATCH_SIZE', 3)
    report = compare_models(predict(labels, probabilities), predict(LABELS, SURE), ENCODED)
    assert report == OnnxReport(OPSET, agreement, difference, 4)


@pytest.mark.parametrize(
    ('labels', 'probabilities', 'found'),
    [
        (np.int64([0, 1, 2, 0]), SURE, r'for 75\.00% of 4 val images, and probabilities that differ by up to 0; '),
        (LABELS, UNSURE, r'for 100\.00% of 4 val images, and probabilities that differ by up to 0\.25; '),
    ],
    ids=['labels', 'probabilities'],
)
def test_an_onnx_model_that_disagrees_is_not_written(labels, probabilities, found, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, 'convert_model', lambda *arguments: onnx.ModelProto())
    monkeypatch.setattr(onnx_export, '_read_onnx', lambda *arguments: predict(labels, probabilities))
    monkeypatch.setattr(onnx_export, '_read_saved_model', lambda folder: predict(LABELS, SURE))
    asked = r'at least 99\.50% \(export\.min_agreement\) and at most 0\.001 are asked for\. Set export\.onnx=false\.$'
    with pytest.raises(ExportError, match=found + asked):
        export_onnx(None, CONFIG, ExportConfig(onnx=True), cifar10.CONTRACT, ENCODED, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_packages_are_asked_for_only_where_they_are_needed(monkeypatch):
    monkeypatch.setattr(trainer_config, 'find_spec', lambda name: None if name == 'tf2onnx' else name)
    config = ExportConfig(onnx=True)
    sentence = r'not installed here: tf2onnx\. Install .*`pip install --no-deps tf2onnx`, or set export\.onnx=false\.$'
    with pytest.raises(UsageError, match=sentence):
        config.check_packages()
    dataclasses.replace(config, onnx=False).check_packages()


def test_a_saved_model_without_an_onnx_model_has_no_report(tmp_path):
    assert read_onnx_report(tmp_path) is None
    assert ONNX_REPORT_FILE.parent == ONNX_FILE.parent
