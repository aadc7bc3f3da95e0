"""The custom components' executors, called as TFX calls them."""

import json
import time
from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components import features, pusher, schema, staging
from components.baseline import BASELINE_FILE, Baseline
from components.errors import DataError
from components.serving import version_labels, versions
from components.serving_check.component import WARMUP_FILE


def read_curated_schema() -> schema_pb2.Schema:
    return text_format.Parse(schema.SCHEMA_FILE.read_text(), schema_pb2.Schema())


@pytest.fixture
def push(tmp_path, place, monkeypatch):
    """Runs the Pusher's executor on a model; gives the serving folder and the pushed_model artifact."""
    monkeypatch.setattr(pusher, 'read_metrics', lambda uri: {None: {'accuracy': 0.93, 'example_count': 100.0}})
    serving = place / 'serving'
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / 'model')
    folder = tmp_path / 'model' / 'Format-Serving'
    (folder / 'variables').mkdir(parents=True)
    (folder / 'saved_model.pb').write_text('graph')
    (folder / 'variables' / 'variables.index').write_text('weights')
    destination = pusher_pb2.PushDestination(filesystem={'base_directory': str(serving)})

    def run(is_blessed: bool, is_servable: bool = True):
        blessing = standard_artifacts.ModelBlessing()
        blessing.uri = str(tmp_path / 'blessing')
        blessing.set_int_custom_property('blessed', int(is_blessed))
        evaluation = standard_artifacts.ModelEvaluation()
        evaluation.uri = str(tmp_path / 'evaluation')
        baseline = Baseline()
        baseline.uri = str(tmp_path / 'baseline')
        Path(baseline.uri).mkdir(exist_ok=True)
        (Path(baseline.uri) / BASELINE_FILE).write_text('{"version": 5}')
        infra = standard_artifacts.InfraBlessing()
        infra.uri = str(tmp_path / 'infra')
        Path(infra.uri).mkdir(exist_ok=True)
        (Path(infra.uri) / WARMUP_FILE).write_text('requests')
        infra.set_int_custom_property('blessed', int(is_servable))
        statistics = standard_artifacts.ExampleStatistics()
        statistics.uri = str(tmp_path / 'statistics')
        (Path(statistics.uri) / 'Split-train').mkdir(parents=True, exist_ok=True)
        (Path(statistics.uri) / 'Split-train' / 'FeatureStats.pb').write_text('statistics')
        pushed = standard_artifacts.PushedModel()
        pushed.uri = str(tmp_path / 'pushed')
        pusher.Executor().Do(
            {
                'model': [model],
                'model_blessing': [blessing],
                'infra_blessing': [infra],
                'evaluation': [evaluation],
                'baseline': [baseline],
                'statistics': [statistics],
            },
            {'pushed_model': [pushed]},
            {
                'push_destination': proto_utils.proto_to_json(destination),
                'custom_config': json.dumps({'data': str(tmp_path / 'data')}),
            },
        )
        return serving, pushed

    return run


def test_a_blessed_model_is_pushed_whole_under_a_number(push):
    serving, pushed = push(True)
    version = versions.find_newest_version(serving)
    assert [name for name in (entry.name for entry in serving.iterdir()) if name[0] != '.'] == [version.name]
    assert abs(int(version.name) - time.time()) < 60
    assert (version / 'saved_model.pb').read_text() == 'graph'
    assert (version / 'variables' / 'variables.index').read_text() == 'weights'
    assert pushed.get_string_custom_property('pushed_destination') == str(version)
    assert pushed.get_string_custom_property('pushed_version') == version.name


def test_a_version_says_how_good_it_is_and_what_it_was_trained_on(push, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'manifest.json').write_text('{"source": {"name": "cifar.tar.gz"}}')
    (version,) = versions.list_versions(push(True)[0])
    assert version.info['accuracy'] == 0.93
    assert version.info['images'] == 100
    assert version.info['data'] == {'source': {'name': 'cifar.tar.gz'}}
    assert version.info['baseline'] == 5
    assert (version.folder / versions.STATISTICS_FOLDER / 'Split-train' / 'FeatureStats.pb').read_text() == 'statistics'
    assert (version.folder / 'assets.extra' / WARMUP_FILE).read_text() == 'requests'
    assert version.is_listed


def test_a_push_is_listed_for_a_server_that_labels_versions(push):
    serving, _ = push(True)
    (first,) = versions.list_versions(serving)
    version_labels.promote(serving, first.number, 'stable', None)
    push(True)
    assert [(each.labels, each.is_listed) for each in versions.list_versions(serving)] == [
        (('stable',), True),
        ((), True),
    ]


def test_a_model_that_is_the_newest_already_is_not_pushed_again(push, monkeypatch):
    monkeypatch.setattr(pusher, 'read_fingerprint', lambda saved_model: 'one')
    serving, first = push(True)
    _, second = push(True)
    assert len(versions.list_versions(serving)) == 1
    number = first.get_string_custom_property('pushed_version')
    assert second.get_string_custom_property('pushed_version') == number
    monkeypatch.setattr(pusher, 'read_fingerprint', lambda saved_model: 'two')
    push(True)
    assert len(versions.list_versions(serving)) == 2


@pytest.mark.parametrize('blessings', [(False, True), (True, False)])
def test_a_refused_model_is_not_pushed(push, blessings):
    serving, pushed = push(*blessings)
    assert list(serving.iterdir()) == []
    assert pushed.get_int_custom_property('pushed') == 0


def test_a_push_that_breaks_leaves_nothing(push, monkeypatch):
    def fail(*arguments):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(pusher, 'choose_version', fail)
        with pytest.raises(OSError, match='disk full'):
            push(True)
    serving, _ = push(True)
    assert len(versions.list_versions(serving)) == 1


def test_staging_removes_what_dead_processes_of_this_host_left(tmp_path):
    with staging.stage_folder(tmp_path / 'd') as live:
        mine = live.name
    stem, _, _ = mine.rpartition('-')
    dead, other_host = tmp_path / f'{stem}-999999999', tmp_path / '.d.partial-elsewhere-1'
    alive = tmp_path / f'{stem}-1'
    for folder in (dead, other_host, alive):
        folder.mkdir()
    with staging.stage_folder(tmp_path / 'd'):
        assert not dead.exists()
    assert other_host.exists()
    assert alive.exists()


def test_the_schema_component_provides_the_curated_schema(tmp_path):
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path)
    schema.Executor().Do({}, {'schema': [artifact]}, {'schema_digest': schema.compute_schema_digest()})
    assert Path(tmp_path, 'schema.pbtxt').read_text() == schema.SCHEMA_FILE.read_text()


def test_another_schema_than_the_compiled_one_is_refused(tmp_path):
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path)
    with pytest.raises(DataError, match='is not the schema that this pipeline was compiled with'):
        schema.Executor().Do({}, {'schema': [artifact]}, {'schema_digest': 'other'})


def test_an_edited_schema_changes_the_cache_key(monkeypatch, tmp_path):
    before = schema.CuratedSchemaGen().exec_properties
    edited = tmp_path / 'schema.pbtxt'
    edited.write_text(schema.SCHEMA_FILE.read_text() + '# edited\n')
    monkeypatch.setattr(schema, 'SCHEMA_FILE', edited)
    assert schema.CuratedSchemaGen().exec_properties != before


def test_our_own_records_have_no_anomalies(sample_data):
    for split in features.SPLITS:
        statistics = tfdv.generate_statistics_from_tfrecord(str(sample_data / split / '*'))
        assert not tfdv.validate_statistics(statistics, read_curated_schema()).anomaly_info


def test_the_schema_catches_labels_out_of_range_and_missing_images(sample_data):
    statistics = tfdv.generate_statistics_from_tfrecord(str(sample_data / 'test' / '*'))
    (dataset,) = statistics.datasets
    for feature in list(dataset.features):
        if feature.path.step[0] == 'label':
            feature.num_stats.max = 10
        if feature.path.step[0] == 'image':
            dataset.features.remove(feature)
    anomalies = tfdv.validate_statistics(statistics, read_curated_schema()).anomaly_info
    assert set(anomalies) == {'label', 'image'}
