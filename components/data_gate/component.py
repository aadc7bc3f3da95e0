"""DataCheck writes down what is wrong with the data; DataGate stops the run where something is.

Two components, because TFX removes what a failed one wrote: the report stays, and says every fault.
"""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.dsl.components.base import base_beam_executor, base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import io_utils

from components import features
from components.data_gate.checks import Finding, find_faults, read_tally, write_tally
from components.data_gate.config import DataGateConfig
from components.data_gate.drift import (
    find_changes,
    find_serving_statistics,
    identify_serving_statistics,
    read_statistics,
)
from components.errors import DataRefusedError
from components.identity_driver import IDENTITY_KEY, IdentityDriver
from components.places import locate
from components.source_digest import compute_source_digest

REPORT_FILE = 'data_report.json'
_EXAMPLES_KEY, _ANOMALIES_KEY, _REPORT_KEY = 'examples', 'anomalies', 'report'
_STATISTICS_KEY, _SCHEMA_KEY = 'statistics', 'schema'
_CONFIG_KEY, _SERVING_KEY, _DIGEST_KEY = 'config', 'serving', 'source_digest'
_SOURCES = [*Path(__file__).parent.glob('*.py'), Path(features.__file__)]
_MAX_SENTENCES = 20  # of those that end a run; the report has them all


class DataReport(types.Artifact):
    """A folder with REPORT_FILE: {'findings': [Finding as a dict, ...], 'records': {split: count}}."""

    TYPE_NAME = 'components.DataReport'  # TFX compiles only names of two parts for Kubeflow


def read_anomalies(anomalies_uri: str) -> list[Finding]:
    """What ExampleValidator found, from its `anomalies` artifact."""
    findings = []
    for split in features.SPLITS:
        with tf.io.gfile.GFile(os.path.join(anomalies_uri, f'Split-{split}', 'SchemaDiff.pb'), 'rb') as file:
            anomalies = anomalies_pb2.Anomalies.FromString(file.read())
        for name, info in sorted(anomalies.anomaly_info.items()):
            severity = 'error' if info.severity == anomalies_pb2.AnomalyInfo.ERROR else 'warning'
            expected = 'what components/schema.pbtxt says'
            findings.append(Finding(severity, 'anomaly', split, name, expected, info.description.rstrip('.'), 0))
    return findings


def read_report(report_uri: str) -> tuple[list[Finding], dict[str, int]]:
    """The findings, and the records by split, of a DataReport."""
    with tf.io.gfile.GFile(os.path.join(report_uri, REPORT_FILE)) as file:
        report = json.load(file)
    return [Finding(**{**finding, 'ids': tuple(finding['ids'])}) for finding in report['findings']], report['records']


class CheckDriver(IdentityDriver):
    """Looks for the serving model's data before the component does."""

    def identify(self, input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any]) -> str:
        """See `identify_serving_statistics`."""
        statistics = locate(artifact_utils.get_single_uri(input_dict[_STATISTICS_KEY]))
        return identify_serving_statistics(locate(exec_properties[_SERVING_KEY]), statistics)


class CheckExecutor(base_beam_executor.BaseBeamExecutor):
    """Runs the checks over all records, adds ExampleValidator's anomalies, and what changed since the last push."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the report.

        Args:
          input_dict: 'examples', 'statistics', 'schema' and 'anomalies'.
          output_dict: 'report'.
          exec_properties: 'config', a DataGateConfig as JSON; 'serving', the folder of versions.
        """
        config = DataGateConfig.from_json(exec_properties[_CONFIG_KEY])
        (examples,) = input_dict[_EXAMPLES_KEY]
        patterns = {
            split: os.path.join(artifact_utils.get_split_uri([examples], split), '*') for split in features.SPLITS
        }
        report_uri = artifact_utils.get_single_uri(output_dict[_REPORT_KEY])
        tally_prefix = os.path.join(report_uri, 'tally')
        with self._make_beam_pipeline() as pipeline:
            write_tally(pipeline, patterns, config.max_pixels, tally_prefix)
        tally = read_tally(tally_prefix)
        findings = find_faults(tally, config)
        findings += read_anomalies(artifact_utils.get_single_uri(input_dict[_ANOMALIES_KEY]))
        before = find_serving_statistics(locate(exec_properties[_SERVING_KEY]))
        if before:
            now = locate(artifact_utils.get_single_uri(input_dict[_STATISTICS_KEY]))
            schema = io_utils.SchemaReader().read(
                io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict[_SCHEMA_KEY]))
            )
            findings += find_changes(read_statistics(now), read_statistics(before), schema, config)
        report = {'findings': [finding._asdict() for finding in findings], 'records': tally.records}
        with tf.io.gfile.GFile(os.path.join(report_uri, REPORT_FILE), 'w') as file:
            json.dump(report, file, indent=2)


class GateExecutor(base_executor.BaseExecutor):
    """Fails where the report has an error."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads 'report' and writes nothing.

        Raises:
          DataRefusedError: with a sentence for each error.
        """
        report_uri = artifact_utils.get_single_uri(input_dict[_REPORT_KEY])
        findings, _ = read_report(report_uri)
        sentences = [finding.to_sentence() for finding in findings if finding.severity == 'error']
        if sentences:
            shown = '; '.join(sentences[:_MAX_SENTENCES])
            raise DataRefusedError(
                f'The data was refused, and nothing was trained: {shown}. All is in {report_uri}/{REPORT_FILE}; mend '
                'the data, or set another bound (data_gate.* in `run --help`).'
            )


class _CheckSpec(types.ComponentSpec):
    PARAMETERS: ClassVar = {
        key: ExecutionParameter(type=str) for key in (_CONFIG_KEY, _SERVING_KEY, IDENTITY_KEY, _DIGEST_KEY)
    }
    INPUTS: ClassVar = {
        _EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        _STATISTICS_KEY: ChannelParameter(type=standard_artifacts.ExampleStatistics),
        _SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema),
        _ANOMALIES_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies),
    }
    OUTPUTS: ClassVar = {_REPORT_KEY: ChannelParameter(type=DataReport)}


class _GateSpec(types.ComponentSpec):
    PARAMETERS: ClassVar = {}
    INPUTS: ClassVar = {_REPORT_KEY: ChannelParameter(type=DataReport)}
    OUTPUTS: ClassVar = {}


class DataCheck(base_component.BaseComponent):
    """Checks every record, and what all amount to.

    Args:
      examples: ImportExampleGen's.
      statistics: StatisticsGen's.
      schema: CuratedSchemaGen's.
      anomalies: ExampleValidator's.
      config: the thresholds.
      serving: the folder that the Pusher pushes to, whose serving model's data is compared with.

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
    ):
        super().__init__(
            _CheckSpec(
                examples=examples,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                config=config.to_json(),
                serving=serving,
                identity='',
                source_digest=compute_source_digest(_SOURCES),
                report=types.Channel(type=DataReport),
            )
        )


class DataGate(base_component.BaseComponent):
    """Ends the run where the data has an error; what must not run on bad data comes after it (`add_upstream_node`).

    Args:
      report: DataCheck's.
    """

    SPEC_CLASS = _GateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(GateExecutor)

    def __init__(self, report: types.BaseChannel):
        super().__init__(_GateSpec(report=report))
