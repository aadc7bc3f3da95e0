"""The serving check: what it blesses, what it refuses and in which words, and what it writes for a server."""

import ast
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2
from tfx import types
from tfx.components.util import model_utils
from tfx.types import standard_artifacts

from components import features
from components.contract import DataContract
from components.data import cifar10
from components.errors import UsageError
from components.model_gate.verdict import Verdict, write_verdict
from components.progress import listen
from components.reasons import Reason, list_broken
from components.serving.model_servers import IMAGE, find_model_server
from components.serving.models_config import MODEL_NAME
from components.serving_check import component, probe, tf_serving
from components.serving_check.component import WARMUP_FILE, Executor, ServingCheck, check_model
from components.serving_check.config import ServingCheckConfig
from components.serving_check.probe import Sample, check_broken, check_signature, find_faults, read_sample
from components.serving_check.questions import ask_client, make_request, write_pixels, write_warmup
from components.serving_check.report import (
    ServingReport,
    make_reason,
    make_skipped_report,
    read_report,
    write_report,
)
from pipeline.summaries import make_closing
from trainer import export
from trainer.config import ExportConfig
from trainer.dataset import read_split
from trainer.decoding import decode_image
from trainer.predictions import MAX_IMAGES, write_predictions

SIGNATURES = ('serving_default', 'serving_default_safe', 'serving_raw', 'examples', 'explain')
SIZES = (1, 4, 40)  # the last one is more images than are recorded, and more than a micro-batch


@pytest.fixture(autouse=True)
def empty_path(monkeypatch, tmp_path) -> Path:
    """Makes PATH only this folder, so that no model server or Docker of the machine is found."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


@pytest.fixture(scope='module')
def predictions(model, transform_output, sample_data, tmp_path_factory) -> Path:
    """A folder with predictions, as the Trainer writes it."""
    folder = tmp_path_factory.mktemp('model_run')
    write_predictions(model, read_split([str(sample_data / 'train' / '*')], transform_output), str(folder))
    return folder


def export_to(folder: Path, model: keras.Model, transform_output) -> Path:
    export.export_model(
        model,
        transform_output,
        str(folder / 'Format-Serving'),
        ExportConfig(),
        tf.data.Dataset.range(0),
        cifar10.CONTRACT,
    )
    return folder


@pytest.fixture(scope='module')
def exported(model, transform_output, tmp_path_factory) -> Path:
    """The folder of a Model artifact, as the Trainer writes it."""
    return export_to(tmp_path_factory.mktemp('model'), model, transform_output)


def ask(folder: Path, predictions: Path, tmp_path: Path, **settings) -> ServingReport:
    config = ServingCheckConfig(**{'batch_sizes': SIZES, 'requests': 5, **settings})
    recorded = predictions / features.PREDICTIONS_FILE
    return check_model(folder / 'Format-Serving', recorded, tmp_path / WARMUP_FILE, config)


def get_refusals(report: ServingReport) -> list[str]:
    assert report.is_blessed == all(reason.is_kept for reason in report.reasons)
    return list_broken(report.reasons)


def make_model_blessing(is_blessed: bool) -> types.Artifact:
    blessing = standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property('blessed', int(is_blessed))
    return blessing


@pytest.fixture(scope='module')
def blessing(exported, predictions, tmp_path_factory) -> types.Artifact:
    """The blessing of a good model, asked by the fresh process and through the small server."""
    artifacts = standard_artifacts.Model(), standard_artifacts.ModelRun(), standard_artifacts.InfraBlessing()
    folder = tmp_path_factory.mktemp('blessing')
    for artifact, uri in zip(artifacts, (exported, predictions, folder / 'blessing'), strict=True):
        artifact.uri = str(uri)
    given, model_run, blessing = artifacts
    Path(blessing.uri).mkdir()
    install(folder, 'tensorflow_model_server', f'#!/bin/sh\nexec {sys.executable} -m pipeline.server "$@"\n')
    settings = json.dumps({'batch_sizes': list(SIZES), 'requests': 20, 'server': 'required'})
    properties = {'config': settings, 'resize': 'bilinear'}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PATH', str(folder))
        inputs = {'model': [given], 'model_run': [model_run], 'model_blessing': [make_model_blessing(True)]}
        Executor().Do(inputs, {'blessing': [blessing]}, properties)
    return blessing


@pytest.mark.slow
def test_a_good_model_is_blessed_as_tfx_blesses(blessing):
    assert model_utils.is_infra_validated(blessing)
    files = {file.name for file in Path(blessing.uri).iterdir()}
    assert files == {'INFRA_BLESSED', 'report.json', WARMUP_FILE}


@pytest.mark.slow
def test_the_report_has_every_figure(blessing, exported):
    report = read_report(blessing.uri)
    assert get_refusals(report) == []
    size = sum(file.stat().st_size for file in exported.rglob('*') if file.is_file())
    assert report.size_mb == pytest.approx(size / 1e6)
    assert 300 < report.memory_mb < 8000
    assert 0 < report.p50_ms <= report.p99_ms
    assert 0 < report.load_s < report.seconds
    assert report.images == MAX_IMAGES
    assert {reason.metric for reason in report.reasons} == {'size', 'memory', 'latency', 'difference'}
    assert report.to_sentence().endswith(' GB memory, tensorflow_model_server asked: servable')


@pytest.mark.slow
def test_every_signature_answers_as_the_trained_network_did_here_and_over_rest_and_grpc(blessing):
    differences = read_report(blessing.uri).differences
    ways = (' over REST', ' over gRPC')
    served = {f'{signature}{way}' for signature in SIGNATURES if signature != 'explain' for way in ways}
    assert set(differences) == {*SIGNATURES, *served}
    assert 0 <= max(differences.values()) < 1e-3


@pytest.mark.slow
def test_the_warm_up_requests_are_what_the_model_answers(blessing, exported):
    loaded = tf.saved_model.load(str(exported / 'Format-Serving'))
    asked = []
    for record in tf.data.TFRecordDataset(str(Path(blessing.uri, WARMUP_FILE))).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == MODEL_NAME
        name, inputs = request.model_spec.signature_name, dict(request.inputs)
        tensors = {key: tf.constant(tf.make_ndarray(value)) for key, value in inputs.items()}
        response = loaded.signatures[name](**tensors)
        asked.append((name, *{len(value) for value in response.values()}))
    assert sorted(asked) == sorted((name, size) for name in (*SIGNATURES, 'transform_features') for size in SIZES)


def test_a_model_that_the_model_gate_has_refused_is_not_asked_and_not_blessed(tmp_path, monkeypatch):
    monkeypatch.setattr(component, 'check_model', None)  # would fail when called
    kinds = (standard_artifacts.Model, standard_artifacts.ModelRun, standard_artifacts.InfraBlessing)
    model, model_run, blessing = (kind() for kind in kinds)
    for artifact in (model, model_run, blessing):
        artifact.uri = str(tmp_path / artifact.type_name)
    Path(blessing.uri).mkdir()
    inputs = {'model': [model], 'model_run': [model_run], 'model_blessing': [make_model_blessing(False)]}
    Executor().Do(inputs, {'blessing': [blessing]}, {'config': json.dumps({'batch_sizes': [1]}), 'resize': 'bilinear'})
    assert not model_utils.is_infra_validated(blessing)
    assert {file.name for file in Path(blessing.uri).iterdir()} == {'INFRA_NOT_BLESSED', 'report.json'}
    assert read_report(blessing.uri).to_sentence() == 'not asked: the model gate refused the model'
    assert read_report(blessing.uri).reasons == ()


def test_the_closing_lines_of_a_refused_model_have_only_the_model_gates_reasons(tmp_path):
    evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.InfraBlessing()
    evaluation.uri, blessing.uri = str(tmp_path), str(tmp_path)
    reasons = (
        Reason('accuracy', '', 0.95, 0.9, 100, True, 'accuracy 0.950 >= 0.900 on 100 test images'),
        Reason('recall', 'cat', 0.1, 0.75, 10, False, 'recall of cat 0.100 < 0.750 on 10'),
    )
    write_verdict(evaluation.uri, Verdict(False, reasons, ''))
    write_report(tmp_path, make_skipped_report())
    outputs = {'Evaluator': {'evaluation': [evaluation]}, 'ServingCheck': {'blessing': [blessing]}}
    closing = make_closing(outputs)
    assert closing.broken == ('recall of cat 0.100 < 0.750 on 10',)
    assert closing.message == 'not pushed: 1 of 2 bounds was not kept'
    assert not closing.is_pushed


@pytest.mark.slow
def test_every_bound_that_is_not_kept_is_named(exported, predictions, tmp_path):
    seen = []
    with listen(seen.append):
        report = ask(
            exported, predictions, tmp_path, max_latency_ms=0.001, max_size_mb=1, max_memory_mb=2, server='required'
        )
    (requests,) = [progress for progress in seen if progress.what == 'requests' and progress.is_finished]
    assert requests.done == requests.total, 'a model without faults answers as many requests as were announced'
    size, memory, latency, server = get_refusals(report)
    assert size == f'model size {report.size_mb:,.0f} MB > 1 MB'
    assert memory == f'peak memory {report.memory_mb:,.0f} MB > 2 MB'
    assert latency == f'p99 of single images {report.p99_ms:,.1f} ms > 0.0 ms over 5 requests'
    assert server == 'TensorFlow Serving: there is none on this machine, and serving_check.server=required needs one'
    assert report.to_sentence().endswith(f'{server}: not servable')


@pytest.mark.slow
def test_a_model_that_is_served_red_and_blue_swapped_is_refused(
    model, transform_output, predictions, tmp_path, monkeypatch
):
    transform = export.ServedModel._transform_images
    monkeypatch.setattr(
        export.ServedModel, '_transform_images', lambda self, encoded: tf.reverse(transform(self, encoded), [-1])
    )
    report = ask(export_to(tmp_path / 'model', model, transform_output), predictions, tmp_path)
    assert get_refusals(report) == [
        f'{name} differs from training by {report.differences[name]:.3f} > 0.050 on 32 images' for name in SIGNATURES
    ]


@pytest.mark.slow
def test_a_model_with_a_weight_that_is_not_a_number_is_refused(model, transform_output, predictions, tmp_path):
    head = model.get_layer(features.OUTPUT_PROBABILITIES)
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.where(np.arange(10) == 3, np.nan, bias)])
    try:
        folder = export_to(tmp_path / 'model', model, transform_output)
    finally:
        head.set_weights([kernel, bias])
    report = ask(folder, predictions, tmp_path)
    assert get_refusals(report) == [f'{name} gives 40 of 40 images values that are not numbers' for name in SIGNATURES]
    assert report.p99_ms is None


@pytest.mark.slow
def test_a_folder_that_is_not_a_model_is_refused_in_a_sentence(predictions, tmp_path):
    folder = tmp_path / 'model' / 'Format-Serving'
    folder.mkdir(parents=True)
    (folder / 'saved_model.pb').write_bytes(b'\xff nonsense')
    report = ask(folder.parent, predictions, tmp_path, server='required')
    (sentence,) = get_refusals(report)
    assert sentence.startswith('the model cannot be loaded: ')
    assert 'Traceback' not in sentence


CLIENTS = {
    'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)': 'was ended by SIGSEGV',
    'raise SystemError("no such thing")': 'failed: SystemError: no such thing',
    'import time; time.sleep(60)': 'had no result after 2 s',
}


@pytest.mark.parametrize('script', CLIENTS)
def test_a_process_that_fails_is_a_reason_and_not_an_error(script, tmp_path, monkeypatch):
    client = tmp_path / 'client.py'
    client.write_text(script)
    monkeypatch.setattr(probe, '__file__', str(client))
    (fault,) = ask_client({}, tmp_path, timeout_s=2)['failures']
    assert make_reason(**fault).sentence == f'the process that asks the model {CLIENTS[script]}'
    assert not make_reason(**fault).is_kept


def test_the_answers_that_the_fresh_process_counts_are_reported(tmp_path, monkeypatch):
    client = tmp_path / 'client.py'
    client.write_text(
        "import sys; print('from a library'); print('progress 0 3'); print('progress 1 3'); print('progress 2 3')\n"
        "open(sys.argv[2], 'w').write('{}')"
    )
    monkeypatch.setattr(probe, '__file__', str(client))
    seen = []
    with listen(seen.append):
        assert ask_client({}, tmp_path) == {}
    assert [(report.what, report.done, report.total) for report in seen if report.is_finished] == [
        ('loading the model', 0, None),
        ('requests', 2, 3),
    ]


def test_the_fresh_process_imports_only_tensorflow_and_numpy():
    tree = ast.parse(Path(probe.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split('.')[0] for name in names}
    assert packages - set(sys.stdlib_module_names) == {'numpy', 'tensorflow'}


REQUEST = make_request('', '', '', ServingCheckConfig(), cifar10.CONTRACT)
EXPECTED = np.eye(10, dtype='float32')[[3, 5]]
NAMES = np.array([b'cat', b'dog'], object)


def make_response(**changes) -> dict[str, np.ndarray]:
    return {'label': np.array([3, 5]), 'class_name': NAMES, 'probabilities': EXPECTED.copy(), **changes}


@pytest.mark.parametrize(
    ('sizes', 'timed'),
    [((1, 2, 4), [1, 2, 4]), ((3,), [3]), (tuple(range(1, 102)), [1, 15, 30, 44, 58, 72, 87, 101])],
)
def test_all_batch_sizes_are_timed_if_they_are_few(sizes, timed):
    request = make_request('', '', '', ServingCheckConfig(batch_sizes=sizes), cifar10.CONTRACT)
    assert request['timed_sizes'] == timed


FAULTY_RESPONSES = {
    's gives 1 of 2 images values that are not numbers': {'probabilities': EXPECTED * [[1], [np.nan]]},
    's gives 1 of 2 images probabilities that do not sum to 1': {'probabilities': EXPECTED * [[1], [2]]},
    's gives 1 of 2 images a label that is not the most probable one': {'label': np.array([3, 4])},
    's gives 2 of 2 images a name that does not belong to their label': {'class_name': NAMES[::-1]},
    's responds to a batch of 2 with label int32 [2]': {'label': np.array([3, 5], 'int32')},
    's responds to a batch of 2 with probabilities float32 [2, 9]': {'probabilities': EXPECTED[:, :9]},
}


@pytest.mark.parametrize('sentence', FAULTY_RESPONSES)
def test_a_faulty_response_is_named(sentence):
    changes = {
        key: value.astype('float32') if value.dtype == 'float64' else value
        for key, value in FAULTY_RESPONSES[sentence].items()
    }
    (fault,) = find_faults(make_response(**changes), 2, REQUEST, 's')
    assert make_reason(**fault).sentence == sentence
    assert list(find_faults(make_response(), 2, REQUEST, 's')) == []


def predict_rows(batch: np.ndarray) -> dict[str, np.ndarray]:
    """Stands for a model that predicts cat for row 0 and dog for row 1."""
    return {key: value[batch] for key, value in make_response().items()}


def test_the_distance_is_reported_for_the_batch_size_where_it_is_greatest():
    sizes = []

    def ask(batch):
        sizes.append(len(batch))
        return predict_rows(batch if len(batch) != 3 else 1 - batch)  # wrong only for batches of 3

    faults, difference = check_signature(ask, 's', np.array([0, 1]), EXPECTED, [1, 3, 8, 0], REQUEST, ())
    assert (faults, difference) == ([], 1.0)
    assert sizes == [8, 3, 3, 1, 1, 1, 1, 0]


def test_a_signature_that_fails_on_a_batch_size_says_which():
    def ask(batch):
        if len(batch) == 3:
            raise tf.errors.InternalError(None, None, 'no\nmemory')
        return predict_rows(batch)

    faults, difference = check_signature(ask, 's', np.array([0, 1]), EXPECTED, [1, 3, 8], REQUEST, (tf.errors.OpError,))
    assert [make_reason(**fault).sentence for fault in faults] == ['s fails on a batch of 3: InternalError: no memory']
    assert difference is None


class Refusal(ValueError):
    pass


@pytest.mark.parametrize(
    ('on_broken', 'on_good', 'sentences'),
    [
        (Refusal('bad'), None, []),
        (None, None, ['for an image that cannot be decoded, s gave an answer']),
        (ValueError('oops'), None, ['for an image that cannot be decoded, s gave ValueError: oops']),
        (
            Refusal('bad'),
            ValueError('gone'),
            ['after an image that could not be decoded, s fails on a good one: ValueError: gone'],
        ),
    ],
)
def test_bytes_that_are_not_an_image_must_be_refused_and_the_next_image_answered(on_broken, on_good, sentences):
    def ask(batch):
        error = on_good if batch[0] == b'good' else on_broken
        if error:
            raise error

    good = np.array([b'good', b'too'], object)
    faults = check_broken(ask, 's', good, b'broken', (ValueError,), (Refusal,))
    assert [make_reason(**fault).sentence for fault in faults] == sentences


def save_tiny_model(folder: Path, fault: str) -> None:
    """Saves a model that calls every image an airplane and has one fault; it is quick to save and to load."""

    def classify(images: tf.Tensor, encoded: tf.Tensor | None) -> dict[str, tf.Tensor]:
        label = tf.zeros([tf.shape(images)[0]], tf.int64)
        if encoded is not None and fault != 'answers_broken':
            pixels = tf.map_fn(tf.io.decode_png, encoded, fn_output_signature=tf.TensorSpec([32, 32, 3], tf.uint8))
            label += tf.minimum(
                tf.reduce_sum(tf.cast(pixels, tf.int64)), 0
            )  # adds nothing, but makes the graph decode the images
        if fault == 'fails_on_empty':
            tf.debugging.assert_positive(tf.size(label))
        names = tf.fill([tf.size(label)], 'airplane')
        return {'label': label, 'class_name': names, 'probabilities': tf.one_hot(label, 10)}

    def classify_safely(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = classify(image, None)
        is_broken = tf.equal(image, probe.BROKEN_IMAGE) & (fault != 'hides_broken')
        label = tf.where(is_broken, tf.constant(-1, tf.int64), outputs['label'])
        return {**outputs, 'label': label, 'error': tf.where(is_broken, 'broken', '')}

    def explain(image: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.assert_equal(tf.shape(image), tf.shape(label))
        count = tf.size(image)
        heat = np.nan if fault == 'has_no_heat' else 1.0
        heat_map = tf.fill([count, 2, 2], tf.constant(heat))
        return {**classify(image, image), 'seen': tf.zeros([count, 4, 4, 3], tf.uint8), 'heat_map': heat_map}

    def parse(examples: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_example(examples, {'image': tf.io.FixedLenFeature([], tf.string)})['image']

    strings, pixels = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 32, 32, 3], tf.uint8)
    value = np.inf if fault == 'infinite' else 0.0
    signatures = {
        'serving_default': tf.function(lambda image: classify(image, image), [strings]),
        'serving_default_safe': tf.function(classify_safely, [strings]),
        'explain': tf.function(explain, [strings, tf.TensorSpec([None], tf.int64)]),
        'serving_raw': tf.function(lambda image: classify(image, None), [pixels]),
        'examples': tf.function(lambda examples: classify(examples, parse(examples)), [strings]),
        'transform_features': tf.function(
            lambda examples: {'image_xf': tf.fill([tf.size(examples), 2], tf.constant(value))}, [strings]
        ),
    }
    names = tf.constant(['', *cifar10.CONTRACT.class_names[:: -1 if fault == 'misnames' else 1], ''])
    signatures['class_names'] = tf.function(
        lambda label: {'class_name': tf.gather(names, label + 1)}, [tf.TensorSpec([None], tf.int64)]
    )
    if fault == 'lacks_one':
        del signatures['serving_raw']
    tf.saved_model.save(tf.Module(), str(folder), {name: f.get_concrete_function() for name, f in signatures.items()})


TINY_FAULTS = {
    'none': [],
    'answers_broken': [
        f'for an image that cannot be decoded, {name} gave an answer'
        for name in ('serving_default', 'examples', 'explain')
    ],
    'hides_broken': ['serving_default_safe does not say which image of a batch cannot be decoded'],
    'has_no_heat': ['explain gives 1 of 1 images values that are not numbers'],
    'fails_on_empty': [f'{name} fails on a batch of 0: InvalidArgumentError' for name in SIGNATURES],
    'infinite': ['transform_features gives 1 of 1 images values that are not numbers'],
    'lacks_one': ['there is no signature serving_raw'],
    'misnames': ['class_names gives 10 of 12 labels a name that is not theirs'],
}


@pytest.mark.parametrize('fault', TINY_FAULTS)
def test_a_fault_of_a_model_is_found_by_asking_it(fault, images, tmp_path):
    save_tiny_model(tmp_path / 'model', fault)
    recorded = tmp_path / features.PREDICTIONS_FILE
    with tf.io.TFRecordWriter(str(recorded)) as writer:
        for image in images:
            feature = {
                'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])),
                'probabilities': tf.train.Feature(float_list=tf.train.FloatList(value=np.eye(10)[0])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    pixels = tmp_path / 'pixels.npy'
    write_pixels(recorded, pixels, cifar10.CONTRACT, is_stretched=False)
    config = ServingCheckConfig(requests=2)
    request = make_request(str(tmp_path / 'model'), str(recorded), str(pixels), config, cifar10.CONTRACT)
    faults = probe.check_model(request)['failures']
    sentences = [make_reason(**fault).sentence.split(': ')[:2] for fault in faults]
    assert [': '.join(parts) for parts in sentences] == TINY_FAULTS[fault]


def encode_photo(width: int, height: int, orientation: int = 1) -> bytes:
    """Makes a JPEG of noise, which takes many bytes."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(out, 'JPEG', quality=95, exif=exif)
    return out.getvalue()


PHOTOS = DataContract(('cat', 'cow', 'dog'), 256, False)


def read_photos(folder: Path, encoded: list[bytes], *, is_stretched: bool = False) -> tuple[dict, Sample]:
    """Makes the request and the sample for images of PHOTOS."""
    recorded, pixels = folder / features.PREDICTIONS_FILE, folder / 'pixels.npy'
    with tf.io.TFRecordWriter(str(recorded)) as writer:
        for image in encoded:
            feature = {
                'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                'probabilities': tf.train.Feature(float_list=tf.train.FloatList(value=[1, 0, 0])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    write_pixels(recorded, pixels, PHOTOS, is_stretched=is_stretched)
    request = make_request('', str(recorded), str(pixels), ServingCheckConfig(), PHOTOS)
    return request, read_sample(request)


@pytest.mark.parametrize('is_stretched', [False, True])
def test_the_pixels_that_a_model_is_asked_with_are_those_that_it_makes_of_the_files(tmp_path, is_stretched):
    encoded = [encode_photo(341, 256), encode_photo(256, 300, orientation=6), encode_photo(256, 256)]
    _, sample = read_photos(tmp_path, encoded, is_stretched=is_stretched)
    for image, pixels in zip(encoded, sample.inputs['serving_raw'], strict=True):
        seen = decode_image(tf.constant(image), 256, is_stretched=is_stretched).numpy().astype(int)
        assert np.abs(pixels - seen).max() <= int(is_stretched)


def test_the_warm_up_requests_of_large_images_stay_small_and_every_signature_has_one(tmp_path):
    request, sample = read_photos(tmp_path, [encode_photo(341, 256)] * 32)
    sizes = ServingCheckConfig().batch_sizes
    write_warmup(tmp_path / 'warmup', request, sample, sizes)
    assert (tmp_path / 'warmup').stat().st_size < 10e6
    asked = Counter()
    for record in tf.data.TFRecordDataset(str(tmp_path / 'warmup')).as_numpy_iterator():
        asked[prediction_log_pb2.PredictionLog.FromString(record).predict_log.request.model_spec.signature_name] += 1
    assert set(asked) == {*request['inputs']}
    assert 1 <= min(asked.values()) < len(sizes)


def test_few_large_images_are_sent_as_pixels_in_json_and_all_of_them_otherwise(tmp_path):
    request, sample = read_photos(tmp_path, [encode_photo(256, 256)] * 32)
    batches = []

    class Client:
        def ask_rest(self, signature, request, batch):
            batches.append((signature, 'REST', len(batch)))
            names, probabilities = np.full(len(batch), b'cat', object), np.eye(3, dtype='float32')[[0] * len(batch)]
            return {'label': np.zeros(len(batch), np.int64), 'class_name': names, 'probabilities': probabilities}

        def ask_grpc(self, signature, request, batch):
            response = self.ask_rest(signature, request, batch)
            batches[-1] = (signature, 'gRPC', len(batch))
            return response

    raw = sample._replace(inputs={'serving_raw': sample.inputs['serving_raw']}, broken={})
    assert tf_serving._ask_all(Client(), raw, request)[0] == []
    assert batches == [('serving_raw', 'REST', 5), ('serving_raw', 'gRPC', 32)]


STARTS = {
    '#!/bin/sh\necho "unknown flag"; exit 3\n': 'it ended with code 3 before it had loaded the model: unknown flag',
    f"""#!{sys.executable}
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{{"model_version_status": [{{"state": "END", "status": {{"error_message": "no op X"}}}}]}}')
(port,) = (int(flag.split('=')[1]) for flag in sys.argv if flag.startswith('--rest_api_port='))
http.server.HTTPServer(('127.0.0.1', port), Handler).serve_forever()
""": 'it cannot load the model: no op X',
}


@pytest.mark.parametrize('script', STARTS)
def test_a_server_that_does_not_load_the_model_is_a_reason_and_is_stopped(script, empty_path, tmp_path, monkeypatch):
    install(empty_path, 'tensorflow_model_server', script)
    started = []

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, 'Popen', start)
    server = find_model_server()
    (fault,), _ = tf_serving.check_server(server, tmp_path / 'versions', MODEL_NAME, None, {})
    assert make_reason(**fault).sentence == f'TensorFlow Serving: {STARTS[script]}'
    assert [process.poll() is None for process in started] == [False]


@pytest.mark.parametrize('is_there', [True, False])
def test_the_docker_image_is_used_if_it_is_there_and_never_pulled(is_there, empty_path, tmp_path):
    install(empty_path, 'docker', f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nexit {int(not is_there)}\n')
    server = find_model_server()
    assert (tmp_path / 'asked').read_text() == f'image inspect {IMAGE}\n'
    assert (server is not None) == is_there
    if is_there:
        assert '--pull=never' in server.make_command((1, 2), (tmp_path,))


@pytest.mark.parametrize(
    'settings',
    [
        {'batch_sizes': ()},
        {'batch_sizes': (0, 1)},
        {'batch_sizes': (8, 1)},
        {'batch_sizes': tuple(range(1, 168))},
        {'max_latency_ms': 0},
        {'max_difference': 1.1},
        {'requests': 0},
    ],
)
def test_impossible_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(UsageError, match=rf'serving_check\.{name} must be'):
        ServingCheckConfig(**settings)


def test_the_config_is_what_the_cache_key_is_made_of():
    kinds = (standard_artifacts.Model, standard_artifacts.ModelRun, standard_artifacts.ModelBlessing)
    config = ServingCheckConfig(batch_sizes=(2,))
    properties = ServingCheck(*(types.Channel(type=kind) for kind in kinds), config, resize='stretch').exec_properties
    assert json.loads(properties['config'])['batch_sizes'] == [2]
