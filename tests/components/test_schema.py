"""The curated schema: the component that writes it, the contract in it, its cache key, what it accepts and refuses."""

import io
import json
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from PIL import Image
from tfx.types import channel, standard_artifacts

from components import contract_schema, features, schema
from components.contract import DataContract
from components.contract_schema import load_contract, make_schema, read_contract
from components.data import cifar10
from components.data.manifest import MANIFEST_NAME
from components.errors import DataError, UsageError

PETS = DataContract(('cat', 'Große Katze', 'perro'), 256, False)


def write_records(folder: Path, sizes: list[tuple[int, int]], labels: list[int]) -> None:
    """Writes the train split of an Examples artifact: an image of each size, width and height, and its label."""
    (folder / 'Split-train').mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / 'Split-train' / 'data.gz'), 'GZIP') as writer:
        for size, label in zip(sizes, labels, strict=True):
            out, example = io.BytesIO(), tf.train.Example()
            Image.new('RGB', size).save(out, 'PNG')
            example.features.feature['image'].bytes_list.value.append(out.getvalue())
            example.features.feature['label'].int64_list.value.append(label)
            writer.write(example.SerializeToString())


def run_component(folder: Path, class_names: tuple[str, ...] = (), digest: str | None = None) -> DataContract:
    """Calls the executor as TFX does for the records in folder/examples, and returns the contract that it wrote."""
    examples, out = standard_artifacts.Examples(), standard_artifacts.Schema()
    examples.uri, out.uri = str(folder / 'examples'), str(folder / 'schema')
    Path(out.uri).mkdir()
    properties = {'schema_digest': digest or schema.compute_schema_digest(), 'class_names': json.dumps(class_names)}
    schema.Executor().Do({'examples': [examples]}, {'schema': [out]}, properties)
    return load_contract(Path(out.uri, 'schema.pbtxt'))


@pytest.mark.parametrize('contract', [cifar10.CONTRACT, PETS])
def test_the_schema_holds_the_contract(contract):
    assert read_contract(make_schema(contract)) == contract


def test_the_contract_is_that_of_the_manifest(tmp_path):
    write_records(tmp_path / 'examples', [(300, 256)], [2])
    (tmp_path / 'examples' / MANIFEST_NAME).write_text(json.dumps({'contract': PETS.to_dict()}))
    assert run_component(tmp_path) == PETS


def test_a_manifest_from_before_there_were_contracts_is_cifar10s(tmp_path):
    write_records(tmp_path / 'examples', [(32, 32)], [2])
    (tmp_path / 'examples' / MANIFEST_NAME).write_text(json.dumps({'limit': None}))
    assert run_component(tmp_path) == cifar10.CONTRACT


def test_class_names_that_differ_from_the_manifests_are_refused(tmp_path):
    write_records(tmp_path / 'examples', [(32, 32)], [2])
    (tmp_path / 'examples' / MANIFEST_NAME).write_text(json.dumps({'contract': PETS.to_dict()}))
    with pytest.raises(UsageError, match=r'The class names of --classes \(a, b\) are not those of the data'):
        run_component(tmp_path, ('a', 'b'))


# By what the records are, without a manifest: sizes, labels, the class names that were given, and the contract.
NAMES = ('a', 'b', 'c')
FOUND = {
    'as CIFAR-10 has them': ([(32, 32)] * 3, [0, 9, 4], (), cifar10.CONTRACT),
    'CIFAR-10, and one label that DataCheck names': (
        [(32, 32)] * 3,
        [0, 12, 0],
        (),
        cifar10.CONTRACT,
    ),
    'nothing, which DataCheck names': ([], [], (), cifar10.CONTRACT),
    'small images of other classes': ([(32, 32)] * 3, [0, 1, 2], NAMES, DataContract(NAMES, 32, True)),
    'squares of one size': ([(64, 64)] * 3, [0, 1, 2], NAMES, DataContract(NAMES, 64, True)),
    'one shorter side': ([(100, 80), (80, 90), (80, 80)], [0, 1, 2], NAMES, DataContract(NAMES, 80, False)),
    'photographs of many sizes': (
        [(640, 480), (500, 375), (80, 80)],
        [0, 1, 2],
        NAMES,
        DataContract(NAMES, 256, False),
    ),
}


@pytest.mark.parametrize('what', FOUND)
def test_without_a_manifest_the_records_and_the_given_names_say_it(what, tmp_path):
    sizes, labels, names, contract = FOUND[what]
    write_records(tmp_path / 'examples', sizes, labels)
    assert run_component(tmp_path, names) == contract


@pytest.mark.parametrize(('size', 'label'), [((64, 64), 3), ((32, 32), 17)])
def test_records_that_nothing_names_are_refused(size, label, tmp_path):
    write_records(tmp_path / 'examples', [size] * 3, [label] * 3)
    with pytest.raises(UsageError, match=rf'no manifest.json .* images \({size[0]}x{size[1]}\) .* give --classes FILE'):
        run_component(tmp_path)


def test_a_schema_that_differs_from_the_compiled_one_is_refused(tmp_path):
    with pytest.raises(DataError, match='is not the schema that this pipeline was compiled with'):
        run_component(tmp_path, digest='other')


def test_an_edited_schema_and_other_class_names_change_the_cache_key(monkeypatch, tmp_path):
    examples = channel.Channel(type=standard_artifacts.Examples)
    before = schema.CuratedSchemaGen(examples).exec_properties
    assert schema.CuratedSchemaGen(examples, NAMES).exec_properties != before
    edited = tmp_path / 'schema.pbtxt'
    edited.write_text(contract_schema.TEMPLATE_FILE.read_text() + '# edited\n')
    monkeypatch.setattr(schema, 'TEMPLATE_FILE', edited)
    assert schema.CuratedSchemaGen(examples).exec_properties != before


@pytest.mark.slow
def test_our_own_records_have_no_anomalies(sample_data):
    for split in features.SPLITS:
        statistics = tfdv.generate_statistics_from_tfrecord(str(sample_data / split / '*'))
        assert not tfdv.validate_statistics(statistics, make_schema(cifar10.CONTRACT)).anomaly_info


def test_the_schema_catches_labels_out_of_range_and_missing_images(sample_data):
    statistics = tfdv.generate_statistics_from_tfrecord(str(sample_data / 'test' / '*'))
    (dataset,) = statistics.datasets
    for feature in list(dataset.features):
        if feature.path.step[0] == 'label':
            feature.num_stats.max = 10
        if feature.path.step[0] == 'image':
            dataset.features.remove(feature)
    anomalies = tfdv.validate_statistics(statistics, make_schema(cifar10.CONTRACT)).anomaly_info
    assert set(anomalies) == {'label', 'image'}
