"""DataCheck writes a report of what is wrong with the data; DataGate stops the run when the report has an error.

These are two components because TFX removes what a failed component wrote: this way the report stays.
"""

from pathlib import Path
from typing import Any, ClassVar

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.dsl.components.base import base_beam_executor, base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components import features
from components.artifacts import Artifacts, Properties
from components.contract_schema import SCHEMA_NAME, read_contract
from components.data_gate.checks import find_faults
from components.data_gate.config import DataGateConfig
from components.data_gate.drift import (
    find_changes,
    find_serving_statistics,
    identify_serving_data,
    judge_serving_classes,
    read_statistics,
)
from components.data_gate.report import DataReport, describe_refusal, read_anomalies, read_report, write_report
from components.data_gate.tally import WORK, read_tally, write_tally
from components.errors import DataRefusedError
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from components.places import locate
from components.progress import track
from components.serving.likeness import ServingClasses

_EXAMPLES_KEY, _ANOMALIES_KEY, _REPORT_KEY = 'examples', 'anomalies', 'report'
_STATISTICS_KEY, _SCHEMA_KEY = 'statistics', 'schema'
_CONFIG_KEY, _SERVING_KEY, _CLASSES_KEY = 'config', 'serving', 'serving_classes'


def _read_schema(input_dict: Artifacts) -> schema_pb2.Schema:
    file = Path(artifact_utils.get_single_uri(input_dict[_SCHEMA_KEY]), SCHEMA_NAME)
    return text_format.Parse(file.read_text(encoding='utf-8'), schema_pb2.Schema())


class CheckDriver(IdentityDriver):
    """Makes a cached report be reused only while the serving model's data is the same."""

    def identify(self, input_dict: Artifacts, exec_properties: Properties) -> str:
        """See `identify_serving_data`."""
        statistics = Path(artifact_utils.get_single_uri(input_dict[_STATISTICS_KEY]))
        contract = read_contract(_read_schema(input_dict))
        return identify_serving_data(locate(exec_properties[_SERVING_KEY]), statistics, contract)


class CheckExecutor(base_beam_executor.BaseBeamExecutor):
    """Checks all records, and adds ExampleValidator's anomalies and the changes from the serving model's data."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes the report.

        Args:
          input_dict: 'examples', 'statistics', 'schema' and 'anomalies'.
          output_dict: 'report'.
          exec_properties: 'config', a DataGateConfig as JSON; 'serving', path or URI of the serving folder;
            'serving_classes', see `components.serving.likeness`.
        """
        schema = _read_schema(input_dict)
        contract = read_contract(schema)
        config = DataGateConfig.from_json(exec_properties[_CONFIG_KEY])
        (examples,) = input_dict[_EXAMPLES_KEY]
        patterns = {split: f'{artifact_utils.get_split_uri([examples], split)}/*' for split in features.SPLITS}
        report_uri = artifact_utils.get_single_uri(output_dict[_REPORT_KEY])
        tally_prefix = f'{report_uri}/tally'
        with track(WORK, None, 'records'), self._make_beam_pipeline() as pipeline:
            write_tally(pipeline, patterns, config.max_pixels, contract, tally_prefix)
        tally = read_tally(tally_prefix)
        findings = find_faults(tally, config, contract)
        findings += read_anomalies(artifact_utils.get_single_uri(input_dict[_ANOMALIES_KEY]))
        serving = locate(exec_properties[_SERVING_KEY])
        unlike = judge_serving_classes(serving, contract, exec_properties[_CLASSES_KEY])
        before = find_serving_statistics(serving)
        if unlike is not None:
            findings.append(unlike)
        elif before:
            now = Path(artifact_utils.get_single_uri(input_dict[_STATISTICS_KEY]))
            findings += find_changes(read_statistics(now), read_statistics(before), schema, config)
        write_report(report_uri, findings, tally.records)


class GateExecutor(base_executor.BaseExecutor):
    """Fails when the report has an error."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Reads 'report' and writes nothing.

        Raises:
          DataRefusedError: the report has an error; the message has a sentence for each.
        """
        report_uri = artifact_utils.get_single_uri(input_dict[_REPORT_KEY])
        findings, _ = read_report(report_uri)
        refusal = describe_refusal(findings, report_uri)
        if refusal:
            raise DataRefusedError(refusal)


class _CheckSpec(types.ComponentSpec):
    PARAMETERS: ClassVar[dict[str, Any]] = {
        key: ExecutionParameter(type=str) for key in (_CONFIG_KEY, _SERVING_KEY, _CLASSES_KEY, IDENTITY_KEY)
    }
    INPUTS: ClassVar[dict[str, Any]] = {
        _EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        _STATISTICS_KEY: ChannelParameter(type=standard_artifacts.ExampleStatistics),
        _SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema),
        _ANOMALIES_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies),
    }
    OUTPUTS: ClassVar[dict[str, Any]] = {_REPORT_KEY: ChannelParameter(type=DataReport)}


class _GateSpec(types.ComponentSpec):
    PARAMETERS: ClassVar[dict[str, Any]] = {}
    INPUTS: ClassVar[dict[str, Any]] = {_REPORT_KEY: ChannelParameter(type=DataReport)}
    OUTPUTS: ClassVar[dict[str, Any]] = {}


class DataCheck(base_component.BaseComponent):
    """Checks every record, the classes of every split, and the changes from the serving model's data.

    Args:
      examples: ImportExampleGen's.
      statistics: StatisticsGen's.
      schema: CuratedSchemaGen's.
      anomalies: ExampleValidator's.
      config: the bounds.
      serving: path or URI of the folder that the Pusher pushes to; the data is compared with that of the model that
        is serving there.
      serving_classes: see `components.serving.likeness`.

    Component `outputs` contains:
      - `report`: Channel of type `DataReport`.
    """

    SPEC_CLASS = _CheckSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CheckExecutor)
    DRIVER_CLASS = CheckDriver

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        anomalies: types.BaseChannel,
        config: DataGateConfig,
        serving: str,
        serving_classes: ServingClasses,
    ):
        super().__init__(
            _CheckSpec(
                examples=examples,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                config=config.to_json(),
                serving=serving,
                serving_classes=serving_classes,
                identity='',
                report=types.Channel(type=DataReport),
            )
        )


class DataGate(base_component.BaseComponent):
    """Ends the run when the data has an error. Components that must not run on bad data name it with
    `add_upstream_node`.

    Args:
      report: DataCheck's.
    """

    SPEC_CLASS = _GateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(GateExecutor)

    def __init__(self, report: types.BaseChannel):
        super().__init__(_GateSpec(report=report))
