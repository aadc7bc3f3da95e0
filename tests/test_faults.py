"""Runs on storage that fails, up to the error; `make campaign` mends each fault and runs to the end."""

import io
import shutil

import pytest
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.orchestration import metadata, pipeline

from components.contract_schema import TEMPLATE_FILE
from components.errors import DataRefusedError, StorageError
from pipeline import local
from pipeline.config import PRESETS, Layout
from pipeline.overrides import apply_overrides
from pipeline.reporter import LineReporter
from pipeline.runner import LocalRunner, NodeResult
from tests.campaign_checks import find_metadata_faults
from tests.campaign_faults import SkippedError, flip_byte, mount_disk


def test_a_flipped_byte_in_the_data_ends_the_run_and_names_the_file(sample_data, tmp_path, capfd):
    data = tmp_path / 'data'
    shutil.copytree(sample_data, data)
    (file,) = (data / 'val').iterdir()
    file.write_bytes(flip_byte(file.read_bytes()))
    config = apply_overrides(PRESETS['sample'](str(tmp_path / 'root')), [f'data={data}'])
    with pytest.raises(DataRefusedError, match=rf'val: {file} is corrupted or cut short'):
        local.run(config, LineReporter(io.StringIO()), verbose=False)
    assert 'Traceback' not in capfd.readouterr().out


def test_a_full_disk_is_named(tmp_path):
    disk = tmp_path / 'disk'
    try:
        with mount_disk(disk, '1m'), pytest.raises(StorageError, match=rf'The disk of {disk}/root is full \('):
            local.run(PRESETS['sample'](str(disk / 'root')), LineReporter(io.StringIO()), verbose=False)
    except SkippedError as error:
        pytest.skip(f'needs to mount: {error}')


def test_a_deleted_artifact_is_made_anew_and_the_others_are_reused(tmp_path):
    layout = Layout(str(tmp_path))

    def run() -> dict[str, NodeResult]:
        results = {}
        graph = pipeline.Pipeline(
            pipeline_name='two',
            pipeline_root=str(layout.artifacts),
            components=[ImportSchemaGen(str(TEMPLATE_FILE)), ImportSchemaGen(str(TEMPLATE_FILE)).with_id('Other')],
            enable_cache=True,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(layout.metadata)),
        )
        LocalRunner(lambda result: results.update({result.node_id: result})).run(graph)
        return results

    assert not any(result.is_reused for result in run().values())
    (folder,) = (layout.artifacts / 'Other' / 'schema').iterdir()
    shutil.rmtree(folder)
    results = run()
    assert results['ImportSchemaGen'].is_reused
    assert not results['Other'].is_reused
    assert results['Other'].lost == (str(folder),)
    assert find_metadata_faults(layout) == []
    assert all(result.is_reused and not result.lost for result in run().values())
