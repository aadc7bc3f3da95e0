"""IdentityDriver within TFX: a result is reused while the identity is the same, and only then."""

from typing import Any

from tfx import types
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.orchestration import metadata, pipeline

from components.contract_schema import TEMPLATE_FILE
from components.identity_driver import IdentityDriver
from pipeline.runner import LocalRunner, NodeResult

OUTSIDE = {'folder': 'version 1'}  # stands for a folder outside the pipeline


class OutsideDriver(IdentityDriver):
    def identify(self, input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> str:
        return OUTSIDE['folder']


class Watcher(ImportSchemaGen):
    DRIVER_CLASS = OutsideDriver


def test_a_component_runs_again_when_the_identity_changes(tmp_path, monkeypatch):
    def run() -> bool:
        results: list[NodeResult] = []
        graph = pipeline.Pipeline(
            pipeline_name='one',
            pipeline_root=str(tmp_path / 'artifacts'),
            components=[Watcher(str(TEMPLATE_FILE))],
            enable_cache=True,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(tmp_path / 'metadata.db')),
        )
        LocalRunner(results.append).run(graph)
        (result,) = results
        return result.is_reused

    assert [run(), run()] == [False, True]
    monkeypatch.setitem(OUTSIDE, 'folder', 'version 2')
    assert [run(), run()] == [False, True]
