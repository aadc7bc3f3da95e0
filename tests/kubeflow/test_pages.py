"""What a run's page on the server shows: each figure, a refused model's reasons, and the form that the page reads."""

import json

import numpy as np
import pytest
from google.protobuf import json_format
from kfp import dsl
from kfp.pipeline_spec import pipeline_spec_pb2

from components.baseline import BaselineInfo
from components.contract import CONTRACT_FILE, DataContract
from components.model_gate.config import GateConfig
from components.model_gate.predictions import Records, write_predictions
from components.model_gate.verdict import judge, write_verdict
from components.serving_check.report import make_reason, make_skipped_report, write_report
from kubeflow import pages
from kubeflow.mirrors import LOGS_KEY
from tests.components.model_gate.test_verdict import NAMES, make_metrics
from trainer.train import REPORT_FILE, TrainingReport


def write_evaluation(folder, metrics: dict) -> None:
    """Writes the Evaluator's artifact: a verdict on the metrics, and predictions of which one takes a cat for a dog."""
    write_verdict(str(folder), judge(metrics, GateConfig(), BaselineInfo(), NAMES))
    labels = np.array([NAMES.index(name) for name in ('cat', 'cat', 'ship')])
    predicted = np.array([NAMES.index(name) for name in ('cat', 'dog', 'ship')])
    records = Records([b''] * 3, np.array([b'a', b'b', b'c']), labels, 'digest')
    file = folder / pages.PREDICTIONS_FILE.name
    write_predictions(file, records, np.eye(len(NAMES), dtype=np.float32)[predicted])


def test_an_accepted_model_shows_its_figures_and_no_refusal(tmp_path):
    write_evaluation(tmp_path, make_metrics(0.93))
    metadata = pages.describe_evaluation(tmp_path)
    assert metadata['verdict'] == 'blessed'
    assert (metadata['accuracy'], metadata['calibration_error'], metadata['images']) == (0.93, 0.02, 10_000)
    assert metadata['recall_cat'] == 0.93
    assert metadata['baseline'].startswith('no baseline')
    assert not [name for name in metadata if name.startswith('refused')]


def test_a_refused_model_shows_each_bound_with_its_name_value_and_count(tmp_path):
    metrics = make_metrics(0.95, calibration_error=0.3)
    metrics[3]['accuracy'] = 0.412
    write_evaluation(tmp_path, metrics)
    metadata = pages.describe_evaluation(tmp_path)
    assert metadata['verdict'] == 'refused: 2 of 14 bounds were not kept'
    assert {name: text for name, text in metadata.items() if name.startswith('refused')} == {
        'refused_recall_cat': 'recall of cat 0.412 (95% interval 0.382 to 0.443) < 0.750 on 1,000',
        'refused_calibration_error': 'calibration error 0.300 > 0.150 on 10,000',
    }


def test_the_confusion_matrix_has_a_row_for_each_true_class_and_the_form_that_the_page_reads(tmp_path):
    write_evaluation(tmp_path, make_metrics(0.93))
    matrix = pages.describe_confusion(tmp_path, tmp_path / 'model')['confusionMatrix']
    names = [spec['displayName'] for spec in matrix['annotationSpecs']]
    counts = {name: dict(zip(names, row['row'], strict=True)) for name, row in zip(names, matrix['rows'], strict=True)}
    assert counts['cat'] == {**dict.fromkeys(names, 0), 'cat': 1, 'dog': 1}
    assert counts['ship']['ship'] == 1
    assert sum(sum(row.values()) for row in counts.values()) == 3
    of_sdk = dsl.ClassificationMetrics()
    of_sdk.log_confusion_matrix(names, [row['row'] for row in matrix['rows']])
    assert of_sdk.metadata['confusionMatrix'] == matrix


@pytest.mark.parametrize('count', [3, 100])
def test_of_many_classes_the_pages_show_those_with_the_most_mistakes(count, tmp_path):
    contract = DataContract(tuple(f'class {number}' for number in range(count)), 256, is_square=False)
    file = tmp_path / 'model' / 'Format-Serving' / CONTRACT_FILE
    file.parent.mkdir(parents=True)
    file.write_text(contract.to_json())
    labels = np.arange(4 * count) % count
    answers = np.where(np.arange(4 * count) < count, (labels + 1) % count, labels)  # a quarter is wrong
    records = Records([b''] * len(labels), np.full(len(labels), b'id'), labels, 'digest')
    write_predictions(tmp_path / pages.PREDICTIONS_FILE.name, records, np.eye(count, dtype=np.float32)[answers])
    names = [*contract.class_names[:20], *(['all others'] if count > 20 else [])]
    outputs = {'artifacts': {'evaluation': {'artifacts': [{'uri': str(tmp_path)}]}}}
    outputs['artifacts']['confusion_matrix'] = {'artifacts': [{'name': 'confusion', 'uri': str(tmp_path / 'page')}]}
    inputs = {'artifacts': {'model': {'artifacts': [{'uri': str(tmp_path / 'model')}]}}}
    (tmp_path / 'output.json').write_text('{}')
    invocation = {'inputs': inputs, 'outputs': {**outputs, 'outputFile': str(tmp_path / 'output.json')}}
    pages.fill_pages(pages.take_pages(outputs), invocation)
    matrix = json.loads((tmp_path / 'page').read_text())['confusionMatrix']
    assert [spec['displayName'] for spec in matrix['annotationSpecs']] == names
    assert [sum(row['row']) for row in matrix['rows']] == [4] * min(count, 20) + [320] * (count > 20)

    metrics = {
        None: make_metrics(0.9)[None],
        **{label: {'accuracy': 0.8, 'example_count': 4} for label in range(count)},
    }
    metrics[count - 1]['accuracy'] = 0.5
    write_verdict(str(tmp_path), judge(metrics, GateConfig(), BaselineInfo(), contract.class_names))
    recalls = [name for name in pages.describe_evaluation(tmp_path) if name.startswith('recall_')]
    assert len(recalls) == min(count, 20)
    assert f'recall_class {count - 1}' in recalls


def test_the_types_are_those_of_the_sdk():
    kinds = (dsl.Metrics, dsl.ClassificationMetrics, dsl.HTML)
    assert [kind.schema_title for kind in kinds] == [pages.METRICS, pages.CLASSIFICATION, pages.HTML]
    assert {kind.schema_version for kind in kinds} == {pages.SCHEMA_VERSION}


def test_the_serving_check_shows_why_it_refused_and_joins_faults_of_one_kind(tmp_path):
    reasons = (
        make_reason('size', '', 102, 500, 1),
        make_reason('latency', 'serving_default', 900, 500, 100),
        make_reason('form', 'examples', 1, 0, 1, 'one label'),
        make_reason('form', 'examples', 1, 0, 8, 'one label'),
    )
    write_report(tmp_path, make_skipped_report()._replace(reasons=reasons, size_mb=102.0, images=26))
    metadata = pages.describe_serving_check(tmp_path)
    assert metadata['verdict'] == 'refused: 3 of 4 bounds were not kept'
    assert metadata['refused_latency_serving_default'] == 'p99 of single images 900.0 ms > 500.0 ms over 100 requests'
    assert metadata['refused_form_examples'].count('one label') == 2
    assert (metadata['size_mb'], metadata['images']) == (102.0, 26)


def test_a_model_that_was_not_asked_is_not_called_servable(tmp_path):
    write_report(tmp_path, make_skipped_report())
    assert pages.describe_serving_check(tmp_path)['verdict'] == 'not asked: the model gate refused the model'


REPORT = TrainingReport('CPU (no GPU found)', 'float32', 'memory', float('nan'), 2, 1, 0.9, 0.8)


@pytest.fixture
def outputs(tmp_path) -> dict:
    """`outputs` of the Trainer's ExecutorInput with local paths, and what TFX wrote."""
    (tmp_path / 'model_run').mkdir()
    (tmp_path / 'model_run' / REPORT_FILE).write_text(json.dumps(REPORT._asdict()))
    names = ('model_run', 'training_metrics', LOGS_KEY)
    artifacts = {name: {'artifacts': [{'name': name, 'uri': str(tmp_path / name)}]} for name in names}
    written = {'artifacts': {'model_run': artifacts['model_run']}}
    (tmp_path / 'output.json').write_text(json.dumps(written))
    return {'artifacts': artifacts, 'outputFile': str(tmp_path / 'output.json')}


def test_tfx_does_not_see_the_pages_outputs_and_the_launcher_reads_them(outputs, tmp_path):
    taken = pages.take_pages(outputs)
    assert [*outputs['artifacts']] == ['model_run', LOGS_KEY]
    pages.fill_pages(taken, {'outputs': outputs})
    # As the launcher reads it (getExecutorOutputFile): JSON has no NaN, and a null could not be recorded.
    output = json_format.Parse((tmp_path / 'output.json').read_text(), pipeline_spec_pb2.ExecutorOutput())
    [artifact] = output.artifacts['training_metrics'].artifacts
    metadata = json_format.MessageToDict(artifact.metadata)
    assert metadata['val_accuracy'] == 0.8
    assert metadata['images_per_s'] == 'nan'
    assert 'temperature' not in metadata, 'the training had no calibration'
    assert json.loads((tmp_path / 'training_metrics').read_text()) == metadata, 'the artifact can be opened'
    assert output.artifacts['model_run'].artifacts[0].uri == str(tmp_path / 'model_run')


def test_a_step_without_pages_keeps_its_output_file(outputs, tmp_path):
    del outputs['artifacts']['training_metrics']
    before = (tmp_path / 'output.json').read_bytes()
    pages.fill_pages(pages.take_pages(outputs), {'outputs': outputs})
    assert (tmp_path / 'output.json').read_bytes() == before


def test_the_report_becomes_the_file_that_the_page_shows(tmp_path):
    (tmp_path / 'report').mkdir()
    (tmp_path / 'report' / 'report.html').write_text('<p>the page</p>')
    names = ('report', 'report_page')
    artifacts = {name: {'artifacts': [{'name': name, 'uri': str(tmp_path / name)}]} for name in names}
    outputs = {'artifacts': artifacts, 'outputFile': str(tmp_path / 'output.json')}
    (tmp_path / 'output.json').write_text('{}')
    pages.fill_pages(pages.take_pages(outputs), {'outputs': outputs})
    assert (tmp_path / 'report_page').read_text() == '<p>the page</p>'
    output = json_format.Parse((tmp_path / 'output.json').read_text(), pipeline_spec_pb2.ExecutorOutput())
    assert output.artifacts['report_page'].artifacts[0].uri == str(tmp_path / 'report_page')
