"""The data report: the artifact, its file, and the message of a run that ends because of it."""

import dataclasses
import json
from pathlib import Path

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types

from components import features
from components.data_gate.findings import Finding

REPORT_FILE = 'data_report.json'
_MAX_SENTENCES = 20  # in the message that ends a run; the report has every finding


class DataReport(types.Artifact):
    """A folder with REPORT_FILE: {'findings': [Finding as a dict, ...], 'records': {split: count}}."""

    TYPE_NAME = 'components.DataReport'  # TFX compiles only names of two parts for Kubeflow


def write_report(report_uri: str, findings: list[Finding], records: dict[str, int]) -> None:
    """Writes the findings, and the number of records by split, into a DataReport."""
    report = {'findings': [dataclasses.asdict(finding) for finding in findings], 'records': records}
    Path(report_uri, REPORT_FILE).write_text(json.dumps(report, indent=2))


def read_report(report_uri: str) -> tuple[list[Finding], dict[str, int]]:
    """Reads the findings, and the number of records by split, from a DataReport."""
    report = json.loads(Path(report_uri, REPORT_FILE).read_text())
    return [Finding(**{**finding, 'ids': tuple(finding['ids'])}) for finding in report['findings']], report['records']


def read_anomalies(anomalies_uri: str) -> list[Finding]:
    """Reads what ExampleValidator found from its `anomalies` artifact."""
    findings = []
    for split in features.SPLITS:
        content = Path(anomalies_uri, f'Split-{split}', 'SchemaDiff.pb').read_bytes()
        anomalies = anomalies_pb2.Anomalies.FromString(content)
        for name, info in sorted(anomalies.anomaly_info.items()):
            severity = 'error' if info.severity == anomalies_pb2.AnomalyInfo.ERROR else 'warning'
            expected = 'what components/schema.pbtxt says'
            findings.append(Finding(severity, 'anomaly', split, name, expected, info.description.rstrip('.'), 0))
    return findings


def describe_refusal(findings: list[Finding], report_uri: str) -> str | None:
    """Says why the data is refused, with a line for each error.

    Each line ends with a full stop, because Kubeflow shows the message as a single line.

    Args:
      findings: of all severities.
      report_uri: the DataReport that holds them.

    Returns:
      The message; None when no finding is an error.
    """
    sentences = [f'{finding.to_sentence()}.' for finding in findings if finding.severity == 'error']
    if not sentences:
        return None
    shown = sentences[:_MAX_SENTENCES]
    if len(sentences) > len(shown):
        shown.append(f'And {len(sentences) - len(shown)} more.')
    return '\n  '.join(['The data was refused, and nothing was trained:', *shown]) + (
        f'\nSee {Path(report_uri, REPORT_FILE)} for all findings. Correct the data, or set a different bound '
        '(data_gate.* in `run --help-all`).'
    )
