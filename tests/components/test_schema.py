"""The curated schema: the component that provides it, its cache key, and what it accepts and refuses."""

from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import standard_artifacts

from components import features, schema
from components.errors import DataError


def read_curated_schema() -> schema_pb2.Schema:
    return text_format.Parse(schema.SCHEMA_FILE.read_text(), schema_pb2.Schema())


def test_the_schema_component_provides_the_curated_schema(tmp_path):
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path)
    schema.Executor().Do({}, {'schema': [artifact]}, {'schema_digest': schema.compute_schema_digest()})
    assert Path(tmp_path, 'schema.pbtxt').read_text() == schema.SCHEMA_FILE.read_text()


def test_a_schema_that_differs_from_the_compiled_one_is_refused(tmp_path):
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


@pytest.mark.slow
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
