"""Planted faults: each is found, named with the ids of its records, and stops a run before anything is trained."""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import standard_artifacts

from components import features
from components.contract import CONTRACT_FILE, DataContract
from components.contract_schema import SCHEMA_NAME, make_schema
from components.data import cifar10, sample
from components.data.tfrecords import encode_example
from components.data_gate.checks import describe_record_faults, find_faults
from components.data_gate.component import CheckExecutor, GateExecutor
from components.data_gate.config import DataGateConfig
from components.data_gate.drift import identify_serving_data
from components.data_gate.findings import Finding
from components.data_gate.report import REPORT_FILE, DataReport, describe_refusal
from components.data_gate.tally import Tally, inspect_image, read_tally, write_tally
from components.errors import DataRefusedError, UsageError, to_one_line
from components.serving.versions import INFO_FILE, STATISTICS_FOLDER
from pipeline.config import BeamConfig

MAX_PIXELS = DataGateConfig().max_pixels
ANIMALS = DataContract(('cat', 'cow', 'dog'), 256, False)


def draw_png(seed: int, label: int) -> bytes:
    return tf.io.encode_png(sample.draw_image(label, np.random.default_rng(seed))).numpy()


def make_png(mode: str = 'RGB', size: tuple[int, int] = (32, 32), kind: str = 'PNG') -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def make_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header declares a large image."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


@pytest.fixture
def splits() -> dict[str, list[bytes]]:
    """Clean records: 60 in train, 20 each in val and test, every class equally often."""
    seeds = iter(range(100))
    return {
        split: [encode_example(f'{split}_{row:05d}', draw_png(next(seeds), row % 10), row % 10) for row in range(count)]
        for split, count in (('train', 60), ('val', 20), ('test', 20))
    }


@pytest.fixture
def check(tmp_path):
    """Writes records, runs the Beam checks over them, and returns the findings."""

    def run(splits: dict[str, list[bytes]], config: DataGateConfig | None = None) -> list[Finding]:
        patterns = write_splits(splits, tmp_path / 'examples')
        with beam.Pipeline(options=PipelineOptions(BeamConfig().options)) as pipeline:
            write_tally(pipeline, patterns, MAX_PIXELS, cifar10.CONTRACT, str(tmp_path / 'tally'))
        tally = read_tally(str(tmp_path / 'tally'))
        assert tally.records == {split: len(records) for split, records in splits.items()}
        return find_faults(tally, config or DataGateConfig(), cifar10.CONTRACT)

    return run


def write_splits(splits: dict[str, list[bytes]], folder: Path) -> dict[str, str]:
    """Writes records as in TFX's Examples artifact; returns the pattern of each split's files."""
    for split, records in splits.items():
        (folder / f'Split-{split}').mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / f'Split-{split}' / 'data.gz'), options='GZIP') as writer:
            for record in records:
                writer.write(record)
    return {split: str(folder / f'Split-{split}' / '*') for split in splits}


def test_clean_data_has_no_fault(check, splits):
    assert check(splits) == []


def replace_image(split: str, row: int, image: bytes):
    def plant(splits):
        splits[split][row] = encode_example(f'{split}_{row:05d}', image, row % 10)

    return plant


def replace_label(split: str, row: int, label: int):
    def plant(splits):
        splits[split][row] = encode_example(f'{split}_{row:05d}', draw_png(1000 + row, row % 10), label)

    return plant


def drop_feature(name: str):
    def plant(splits):
        example = tf.train.Example.FromString(splits['val'][4])
        del example.features.feature[name]
        splits['val'][4] = example.SerializeToString()

    return plant


def retype_label(splits):
    example = tf.train.Example.FromString(splits['val'][4])
    example.features.feature['label'].bytes_list.value.append(b'cat')
    splits['val'][4] = example.SerializeToString()


def copy_train_image_into_test(splits):
    train = tf.train.Example.FromString(splits['train'][7]).features.feature['image'].bytes_list.value[0]
    image = Image.open(io.BytesIO(train))
    buffer = io.BytesIO()
    image.save(buffer, 'PNG', compress_level=1)  # different bytes, the same pixels
    assert buffer.getvalue() != train
    splits['test'][7] = encode_example('test_00007', buffer.getvalue(), 7)


def drop_class(splits):
    splits['test'] = [record for row, record in enumerate(splits['test']) if row % 10 != 3]


FAULTS = {
    'cut_short': (replace_image('train', 3, draw_png(5, 3)[:300]), 'undecodable', 'train', ('train_00003',)),
    'no_image': (replace_image('val', 3, b'hello'), 'undecodable', 'val', ('val_00003',)),
    'empty_image': (replace_image('val', 3, b''), 'undecodable', 'val', ('val_00003',)),
    'gif': (replace_image('test', 0, make_png('P', kind='GIF')), 'undecodable', 'test', ('test_00000',)),
    'too_large': (replace_image('test', 0, make_png(size=(33, 32))), 'wrong_size', 'test', ('test_00000',)),
    'grey': (replace_image('train', 9, make_png('L')), 'wrong_channels', 'train', ('train_00009',)),
    'alpha': (replace_image('train', 9, make_png('RGBA')), 'wrong_channels', 'train', ('train_00009',)),
    'bomb': (replace_image('train', 1, make_bomb(5_000, 5_000)), 'oversized', 'train', ('train_00001',)),
    'huge_bomb': (replace_image('train', 1, make_bomb(60_000, 60_000)), 'oversized', 'train', ('train_00001',)),
    'label_over_9': (replace_label('train', 8, 10), 'bad_labels', 'train', ('train_00008',)),
    'negative_label': (replace_label('test', 8, -1), 'bad_labels', 'test', ('test_00008',)),
    'no_image_feature': (drop_feature('image'), 'missing', 'val', ('val_00004',)),
    'no_label': (drop_feature('label'), 'missing', 'val', ('val_00004',)),
    'label_as_text': (retype_label, 'missing', 'val', ('val_00004',)),
    'train_image_in_test': (
        copy_train_image_into_test,
        'test_duplicates',
        'test',
        ('test_00007 = train_00007',),
    ),
    'class_missing': (drop_class, 'missing_class', 'test', ()),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_planted_fault_is_found_and_named(check, splits, name):
    plant, kind, split, ids = FAULTS[name]
    plant(splits)
    (finding,) = [finding for finding in check(splits) if finding.severity == 'error']
    assert (finding.kind, finding.split, finding.ids) == (kind, split, ids)
    assert finding.to_sentence().startswith(split)
    assert all(name in finding.to_sentence() for name in ids)


def test_an_empty_split_is_found(check, splits):
    splits['val'] = []
    assert [(finding.kind, finding.split) for finding in check(splits)] == [('empty', 'val')]


def test_a_record_that_is_not_an_example_is_found(check, splits):
    splits['train'][0] = b'\xff\xff nonsense'
    (finding,) = check(splits)
    assert finding.kind == 'missing'
    assert finding.ids[0].startswith('sha256:'), 'a record without an id is named by its digest'


def test_imbalance_against_train_is_found_and_chance_differences_are_not(check, splits):
    splits['test'] = [encode_example(f'test_{row:05d}', draw_png(500 + row, 0), 0) for row in range(40)] + splits[
        'test'
    ]
    findings = check(splits)
    assert [(finding.kind, finding.severity) for finding in findings] == [('imbalance', 'error')]
    assert (
        findings[0].to_sentence()
        == 'test, label: 42 of 60 records are airplane; expected about 6, the same share as in train'
    )


def test_the_first_ten_ids_are_kept_and_three_are_shown(check, splits):
    splits['train'] += [encode_example(f'train_{row:05d}', b'x', row % 10) for row in range(900, 940)]
    (finding,) = check(splits)
    assert finding.count == 40
    assert finding.ids == tuple(f'train_{row:05d}' for row in range(900, 910))
    assert finding.to_sentence() == (
        'train, image: 40 of 100 records do not decode; expected PNG or JPEG '
        '(train_00900, train_00901, train_00902 and 37 more)'
    )


def test_faults_within_their_bound_are_a_warning(check, splits):
    replace_image('train', 3, b'x')(splits)
    (finding,) = check(splits, DataGateConfig(max_undecodable=0.02))
    assert finding.severity == 'warning'


def test_every_kind_of_record_fault_has_a_bound():
    for kind in describe_record_faults(cifar10.CONTRACT):
        assert getattr(DataGateConfig(), f'max_{kind}') == 0.0


@pytest.mark.parametrize(
    ('contract', 'size', 'fault'),
    [
        (ANIMALS, (341, 256), None),
        (ANIMALS, (256, 256), None),
        (ANIMALS, (256, 1024), None),
        (ANIMALS, (255, 341), 'wrong_size'),
        (ANIMALS, (341, 257), 'wrong_size'),
        (ANIMALS._replace(is_square=True), (256, 256), None),
        (ANIMALS._replace(is_square=True), (341, 256), 'wrong_size'),
    ],
)
def test_the_size_that_an_image_must_have_is_the_contracts(contract, size, fault):
    assert inspect_image(make_png(size=size), MAX_PIXELS, contract)[0] == fault


def test_the_words_about_wrong_records_are_the_contracts():
    faults = describe_record_faults(ANIMALS)
    assert faults['wrong_size'].expected == 'a shorter side of 256 pixels'
    assert faults['bad_labels'].expected == '0 to 2'


def find_class_faults(train: list[int], test: list[int]) -> list[Finding]:
    """Finds the faults of records that have only labels; `train` and `test` are how many of each class."""
    contract = DataContract(tuple(f'class{label}' for label in range(len(train))), 64, False)
    counts = {'train': train, 'val': train, 'test': test}
    classes = {split: dict(enumerate(each)) for split, each in counts.items()}
    records = {split: sum(each) for split, each in counts.items()}
    empty = {split: {} for split in counts}
    return find_faults(Tally(records, classes, empty, empty), DataGateConfig(), contract)


def test_thirty_test_images_of_three_classes_are_within_chance_and_a_missing_class_is_not():
    assert find_class_faults([80, 80, 80], [10, 10, 10]) == []
    assert find_class_faults([80, 80, 80], [18, 9, 3]) == []
    assert [finding.kind for finding in find_class_faults([80, 80, 80], [27, 2, 1])] == ['imbalance']
    assert [finding.kind for finding in find_class_faults([80, 80, 80], [15, 15, 0])] == ['missing_class']


def test_random_splits_of_many_classes_are_within_chance():
    random = np.random.default_rng(0)
    for _ in range(5):
        train, test = (random.poisson(mean, 300).tolist() for mean in (80, 3))
        assert {finding.kind for finding in find_class_faults(train, test)} <= {'missing_class'}


def test_findings_about_many_classes_stay_short():
    missing, *imbalances = find_class_faults([100] * 300, [0] * 150 + [200] * 150)
    assert missing.to_sentence() == (
        'test, label: no record of class0, class1, class2, class3, class4 and 145 more; expected every class'
    )
    assert len(imbalances) == 6
    assert imbalances[-1].found == '295 more classes have a different share of the records'


@pytest.mark.parametrize('settings', [{'max_imbalance': 1.5}, {'max_missing': -0.1}, {'max_pixels': 0}])
def test_impossible_bounds_are_refused(settings):
    with pytest.raises(UsageError, match=r'data_gate\.max_\w+ must be'):
        DataGateConfig(**settings)


def test_a_jpeg_is_as_good_as_a_png():
    fault, digest = inspect_image(make_png(kind='JPEG'), MAX_PIXELS, cifar10.CONTRACT)
    assert fault is None
    assert digest == inspect_image(make_png(), MAX_PIXELS, cifar10.CONTRACT)[1]


def write_statistics(patterns: dict[str, str], out: Path) -> None:
    """Writes TFDV's statistics of each split as StatisticsGen does."""
    schema = make_schema(cifar10.CONTRACT)
    for split, pattern in patterns.items():
        statistics = tfdv.generate_statistics_from_tfrecord(pattern, stats_options=tfdv.StatsOptions(schema=schema))
        (out / f'Split-{split}').mkdir(parents=True)
        (out / f'Split-{split}' / 'FeatureStats.pb').write_bytes(statistics.SerializeToString())


def make_version(serving: Path, number: int, contract: DataContract) -> None:
    """Makes a version of these classes."""
    extra = serving / str(number) / CONTRACT_FILE.parent
    extra.mkdir(parents=True)
    (extra.parent / 'saved_model.pb').touch()
    (extra / CONTRACT_FILE.name).write_text(contract.to_json())


@pytest.fixture
def run_gate(tmp_path):
    """Calls both components' executors as TFX does, on records and an anomaly in train; returns the report.

    `before` is the data of the serving model, and `served` its contract.
    """

    def run(
        splits,
        anomaly: anomalies_pb2.AnomalyInfo | None = None,
        before=None,
        served: DataContract = cifar10.CONTRACT,
        serving_classes: str = 'same',
    ) -> dict:
        write_splits(splits, tmp_path / 'examples')
        examples, anomalies, report = standard_artifacts.Examples(), standard_artifacts.ExampleAnomalies(), DataReport()
        examples.split_names = json.dumps(list(features.SPLITS))
        statistics, schema = standard_artifacts.ExampleStatistics(), standard_artifacts.Schema()
        artifacts = {
            'examples': examples,
            'anomalies': anomalies,
            'report': report,
            'statistics': statistics,
            'schema': schema,
        }
        for name, artifact in artifacts.items():
            artifact.uri = str(tmp_path / name)
            Path(artifact.uri).mkdir(exist_ok=True)
        tfdv.write_schema_text(make_schema(cifar10.CONTRACT), str(Path(schema.uri, SCHEMA_NAME)))
        if before or served != cifar10.CONTRACT:
            make_version(tmp_path / 'serving', 7, served)
        if before:
            write_statistics(write_splits(before, tmp_path / 'before'), tmp_path / 'serving' / '7' / STATISTICS_FOLDER)
            write_statistics(write_splits(splits, tmp_path / 'now'), tmp_path / 'statistics')
        for split in features.SPLITS:
            found = anomalies_pb2.Anomalies()
            if anomaly and split == 'train':
                found.anomaly_info['label'].CopyFrom(anomaly)
            (tmp_path / 'anomalies' / f'Split-{split}').mkdir()
            (tmp_path / 'anomalies' / f'Split-{split}' / 'SchemaDiff.pb').write_bytes(found.SerializeToString())
        context = CheckExecutor.Context(beam_pipeline_args=BeamConfig().options, tmp_dir=str(tmp_path))
        inputs = {name: [artifact] for name, artifact in artifacts.items() if name != 'report'}
        properties = {'config': '{}', 'serving': str(tmp_path / 'serving'), 'serving_classes': serving_classes}
        CheckExecutor(context).Do(inputs, {'report': [report]}, properties)
        GateExecutor().Do({'report': [report]}, {}, {})
        return json.loads((tmp_path / 'report' / REPORT_FILE).read_text())

    return run


def test_clean_data_passes_the_gate(run_gate, splits):
    assert run_gate(splits) == {'findings': [], 'records': {'train': 60, 'val': 20, 'test': 20}}


def test_the_gate_names_every_error_and_the_report_stays(run_gate, splits, tmp_path):
    replace_image('train', 3, b'x')(splits)
    drop_class(splits)
    with pytest.raises(DataRefusedError) as caught:
        run_gate(splits)
    assert caught.value.exit_code == 4
    report = tmp_path / 'report' / REPORT_FILE
    assert str(caught.value) == (
        'The data was refused, and nothing was trained:\n'
        '  train, image: 1 of 60 records do not decode; expected PNG or JPEG (train_00003).\n'
        '  test, label: no record of cat; expected every class.\n'
        f'See {report} for all findings. Correct the data, or set a different bound (data_gate.* in `run --help-all`).'
    )
    assert f'(train_00003). test, label: no record of cat; expected every class. See {report} for' in to_one_line(
        caught.value, limit=2000
    )
    assert len(json.loads(report.read_text())['findings']) == 2


def test_a_refusal_shows_twenty_errors_and_counts_the_others():
    errors = [Finding('error', 'anomaly', 'train', f'feature{number}', 'x', 'y', 0) for number in range(23)]
    warnings = [Finding('warning', 'anomaly', 'train', 'warned', 'x', 'y', 0)]
    lines = describe_refusal(warnings + errors, 'report').splitlines()
    assert lines[1:-1] == [*(f'  train, feature{number}: y; expected x.' for number in range(20)), '  And 3 more.']
    assert describe_refusal(warnings, 'report') is None


def test_an_anomaly_of_tfdv_stops_the_run(run_gate, splits):
    info = anomalies_pb2.AnomalyInfo(severity='ERROR', description='Examples contain values missing from the schema.')
    with pytest.raises(DataRefusedError, match='train, label: Examples contain values missing from the schema; expect'):
        run_gate(splits, info)


def test_a_warning_of_tfdv_does_not(run_gate, splits):
    info = anomalies_pb2.AnomalyInfo(severity='WARNING', description='New column.')
    (finding,) = run_gate(splits, info)['findings']
    assert finding['severity'] == 'warning'


@pytest.mark.slow
def test_data_like_that_of_the_serving_model_passes(run_gate, splits):
    before = {split: records[:-1] for split, records in splits.items()}
    assert run_gate(splits, before=before)['findings'] == []


@pytest.mark.slow
def test_a_split_that_shrank_stops_the_run(run_gate, splits):
    before = {**splits, 'val': splits['val'] * 2}
    with pytest.raises(
        DataRefusedError, match='val: 20 records; expected about 40, as in the data of the serving model'
    ):
        run_gate(splits, before=before)


@pytest.mark.slow
def test_drift_from_the_data_of_the_serving_model_stops_the_run(run_gate, splits):
    ships = [encode_example(f'train_{row:05d}', draw_png(700 + row, 8), 8) for row in range(60, 90)]
    before = {**splits, 'train': splits['train'][:40] + ships[:20]}
    with pytest.raises(DataRefusedError) as caught:
        run_gate(splits, before=before)
    sentence = str(caught.value)
    assert 'train, label: The Linfty distance between current and previous is 0.3' in sentence
    assert 'above the threshold 0.1. The feature value with maximum difference is: 8; expected the class' in sentence


def test_a_serving_version_of_other_classes_stops_the_run_and_says_what_to_do(run_gate, splits, tmp_path):
    with pytest.raises(DataRefusedError) as caught:
        run_gate(splits, served=ANIMALS)
    assert caught.value.exit_code == 4
    assert (
        f'  serving: version 7 of {tmp_path / "serving"} has other classes: 3 classes (cat, cow, dog) at 256 pixels; '
        f'expected {cifar10.CONTRACT.describe()}, as in the data of this run; give another folder with --set '
        'serving=DIR, or push there anyway with --set serving_classes=any.\n'
    ) in str(caught.value)


def test_other_classes_are_a_warning_if_they_are_allowed_and_the_data_is_not_compared(run_gate, splits):
    shrunk = {**splits, 'val': splits['val'] * 2}
    (finding,) = run_gate(splits, before=shrunk, served=ANIMALS, serving_classes='any')['findings']
    assert (finding['severity'], finding['kind']) == ('warning', 'unlike_serving')
    assert 'serving_classes' not in finding['expected']


@pytest.mark.slow
def test_the_cache_key_changes_with_the_serving_models_data_and_not_with_the_runs_own(splits, tmp_path):
    serving, now = tmp_path / 'serving', tmp_path / 'now'
    write_statistics(write_splits(splits, tmp_path / 'examples'), now)

    def identify(contract: DataContract = cifar10.CONTRACT) -> str:
        return identify_serving_data(serving, now, contract)

    assert identify() == ''
    make_version(serving, 7, cifar10.CONTRACT)
    assert identify() == '', 'pushed without statistics, not by this pipeline'
    served = serving / '7' / STATISTICS_FOLDER
    shutil.copytree(now, served)
    assert identify() == ''
    assert identify(ANIMALS) == '7 unlike'
    make_version(serving, 8, ANIMALS)
    shutil.copytree(now, serving / '8' / STATISTICS_FOLDER)
    (serving / '8' / INFO_FILE).write_text(json.dumps({'unlike': 7}))
    assert identify(ANIMALS) == '7 unlike', "the run's own model is serving, and the key is what it was before"
    shutil.rmtree(serving / '8')
    (served / 'Split-val' / 'FeatureStats.pb').write_bytes(b'')
    assert identify() not in ('', '7 unlike')


def test_real_images_have_no_fault(check, real_archive, tmp_path):
    splits = {split: [] for split in features.SPLITS}
    for file in cifar10.extract_batches(real_archive, tmp_path):
        split = 'test' if file.path.name == cifar10.TEST_BATCH else 'train'
        batch = cifar10.read_records(file.path, 0, file.records)
        for row in range(0, file.records, 10):
            png = tf.io.encode_png(batch.images[row]).numpy()
            splits[split].append(encode_example(f'{file.path.name}_{row}', png, int(batch.labels[row])))
    splits['val'] = splits['train'][::10]
    splits['train'] = [record for number, record in enumerate(splits['train']) if number % 10]
    assert [finding for finding in check(splits) if finding.severity == 'error'] == []
