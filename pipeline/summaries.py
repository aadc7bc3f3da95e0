"""A line for each component: what it did, in numbers, read from the artifacts that it wrote."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types
from tfx.types import artifact_utils

from components import features
from components.base_model import read_base_version
from components.baseline import read_baseline
from components.contract_schema import SCHEMA_NAME, load_contract
from components.data_gate.report import read_anomalies, read_report
from components.errors import PipelineError
from components.hyperparameters import TRIALS_FILE, describe_hyperparameters
from components.model_gate.metrics import RECALL
from components.model_gate.verdict import read_verdict
from components.places import locate
from components.reasons import Reason, list_broken
from components.serving_check.report import read_report as read_serving_report
from pipeline.batch.results import read_manifest
from pipeline.config import PipelineConfig
from pipeline.report.component import ERROR_PROPERTY, REPORT_FILE as PAGE_FILE
from trainer.train import REPORT_FILE

_NAMED = 20  # bounds that were not kept, in the closing lines

Outputs = Mapping[str, Sequence[types.Artifact]]


def _get_uri(outputs: Outputs, key: str) -> Path:
    return Path(artifact_utils.get_single_instance(list(outputs[key])).uri)


def _measure_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())


def _format_bytes(count: float) -> str:
    for unit in ('B', 'KB', 'MB'):
        if count < 1000:
            return f'{count:.0f} {unit}'
        count /= 1000
    return f'{count:.1f} GB'


def _summarize_examples(outputs: Outputs, config: PipelineConfig) -> str:
    folder = _get_uri(outputs, 'examples')
    files = sum(1 for _ in folder.rglob('*.gz'))
    return f'{files} TFRecord files, {_format_bytes(_measure_bytes(folder))}'


def _summarize_statistics(outputs: Outputs, config: PipelineConfig) -> str:
    counts = []
    for split in features.SPLITS:
        file = _get_uri(outputs, 'statistics') / f'Split-{split}' / 'FeatureStats.pb'
        stats = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
        counts.append(f'{stats.datasets[0].num_examples:,} {split}')
    return ', '.join(counts)


def _summarize_schema(outputs: Outputs, config: PipelineConfig) -> str:
    return load_contract(_get_uri(outputs, 'schema') / SCHEMA_NAME).describe()


def _summarize_anomalies(outputs: Outputs, config: PipelineConfig) -> str:
    return f'{len(read_anomalies(str(_get_uri(outputs, "anomalies"))))} anomalies'


def _summarize_check(outputs: Outputs, config: PipelineConfig) -> str:
    findings, records = read_report(str(_get_uri(outputs, 'report')))
    errors = sum(finding.severity == 'error' for finding in findings)
    warnings = [finding.to_sentence() for finding in findings if finding.severity == 'warning']
    text = f'{sum(records.values()):,} records, {errors} errors, {len(warnings)} warnings'
    return '; '.join([text, *warnings])


def _summarize_gate(outputs: Outputs, config: PipelineConfig) -> str:
    return 'the data is accepted'


def _summarize_transform(outputs: Outputs, config: PipelineConfig) -> str:
    size = config.trainer.get_image_size()
    return f'graph of {_format_bytes(_measure_bytes(_get_uri(outputs, "transform_graph")))}, images to {size}x{size}'


def _summarize_search(outputs: Outputs, config: PipelineConfig) -> str:
    search = json.loads((_get_uri(outputs, 'tuner_results') / TRIALS_FILE).read_text())
    best = search['trials'][0]
    return (
        f'{len(search["trials"])} trials, the best is {best["trial"]} with val_accuracy {best["val_accuracy"]:.3f}: '
        f'{describe_hyperparameters(best["hyperparameters"])}; the frozen layers took {search["frozen_pass_s"]:.0f} s'
    )


def _summarize_training(outputs: Outputs, config: PipelineConfig) -> str:
    report = json.loads((_get_uri(outputs, 'model_run') / REPORT_FILE).read_text())
    return (
        f'val_accuracy {report["val_accuracy"]:.3f} (epoch {report["best_epoch"]} of {report["epochs"]}), '
        f'{report["images_per_s"]:.1f} images/s on {report["device"]}, {report["precision"]}, cache {report["cache"]}'
    )


def _summarize_base_model(outputs: Outputs, config: PipelineConfig) -> str:
    version = read_base_version(str(_get_uri(outputs, 'model')))
    return 'none: nothing is serving' if version is None else f'the training begins with version {version}'


def _summarize_baseline(outputs: Outputs, config: PipelineConfig) -> str:
    baseline = read_baseline(str(_get_uri(outputs, 'baseline')))
    return f'none: {baseline.describe_absence()}' if baseline.version is None else f'version {baseline.version}'


def _summarize_evaluation(outputs: Outputs, config: PipelineConfig) -> str:
    verdict = read_verdict(str(_get_uri(outputs, 'evaluation')))
    recalls = [reason for reason in verdict.reasons if reason.metric == RECALL]
    lowest = min(recalls, key=lambda reason: reason.value)
    blessing = 'blessed' if verdict.is_blessed else 'not blessed'
    overall = f'accuracy {verdict.overall.value:.3f} on {verdict.overall.count:,} images'
    return f'{overall}, recall from {lowest.value:.3f} ({lowest.slice}), {verdict.baseline}: {blessing}'


def _summarize_serving(outputs: Outputs, config: PipelineConfig) -> str:
    return read_serving_report(str(_get_uri(outputs, 'blessing'))).to_sentence()


class Closing(NamedTuple):
    """Why a model was pushed or not."""

    is_pushed: bool
    """Whether it was."""
    reasons: tuple[Reason, ...]
    """Every bound of the model gate and of the serving check; of the latter none if nothing was asked."""
    broken: tuple[str, ...]
    """A sentence for each bound that was not kept, with value, bound and count."""
    message: str
    """The last line: the accuracy of a pushed model, or how many bounds were not kept."""


def make_closing(outputs: Mapping[str, Outputs]) -> Closing:
    """Says why a model was pushed or not.

    Args:
      outputs: artifacts by component and key.
    """
    verdict = read_verdict(str(_get_uri(outputs['Evaluator'], 'evaluation')))
    report = read_serving_report(str(_get_uri(outputs['ServingCheck'], 'blessing')))
    reasons = (*verdict.reasons, *report.reasons)
    if verdict.is_blessed and report.is_blessed:
        return Closing(True, reasons, (), f'{verdict.overall.sentence}: pushed')
    broken = list_broken(reasons)
    verb = 'was' if len(broken) == 1 else 'were'
    message = f'not pushed: {len(broken)} of {len(reasons)} bounds {verb} not kept'
    more = [f'and {len(broken) - _NAMED:,} more, which the report names'] if len(broken) > _NAMED else []
    return Closing(False, reasons, (*broken[:_NAMED], *more), message)


def _summarize_push(outputs: Outputs, config: PipelineConfig) -> str:
    pushed_model = artifact_utils.get_single_instance(list(outputs['pushed_model']))
    if not pushed_model.get_int_custom_property('pushed'):
        return 'nothing pushed'
    return f'version {pushed_model.get_string_custom_property("pushed_version")}'


def _summarize_report(outputs: Outputs, config: PipelineConfig) -> str:
    report = artifact_utils.get_single_instance(list(outputs['report']))
    error = report.get_string_custom_property(ERROR_PROPERTY)
    page = Path(report.uri, PAGE_FILE)
    return f'could not be made: {error}' if error else f'a page of {_format_bytes(page.stat().st_size)}'


def _summarize_bulk_inference(outputs: Outputs, config: PipelineConfig) -> str:
    manifest = read_manifest(_get_uri(outputs, 'inference_result'))
    if manifest is None:
        return 'nothing predicted: the model was refused'
    return f'{manifest["predicted"]:,} images predicted, {manifest["dead_letters"]:,} dead letters'


_SUMMARIES: dict[str, Callable[[Outputs, PipelineConfig], str]] = {
    'ImportExampleGen': _summarize_examples,
    'StatisticsGen': _summarize_statistics,
    'CuratedSchemaGen': _summarize_schema,
    'ExampleValidator': _summarize_anomalies,
    'DataCheck': _summarize_check,
    'DataGate': _summarize_gate,
    'Transform': _summarize_transform,
    'BaseModelFinder': _summarize_base_model,
    'Tuner': _summarize_search,
    'Trainer': _summarize_training,
    'BaselineFinder': _summarize_baseline,
    'Evaluator': _summarize_evaluation,
    'ServingCheck': _summarize_serving,
    'Pusher': _summarize_push,
    'Report': _summarize_report,
    'BulkInferrer': _summarize_bulk_inference,
}


def summarize(node_id: str, outputs: Outputs, config: PipelineConfig) -> str:
    """Says what a component did, in a few words and numbers.

    Args:
      node_id: the component's id in the pipeline; a component that is not known here gets an empty summary.
      outputs: the component's output artifacts by key.
      config: the settings of the run.
    """
    summary = _SUMMARIES.get(node_id)
    return summary(outputs, config) if summary else ''


def list_paths(outputs: Mapping[str, Outputs]) -> dict[str, Path | str]:
    """Returns the paths that matter after a run, by name.

    Args:
      outputs: artifacts by component and key.

    Raises:
      PipelineError: the pushed version has been removed since an earlier run pushed it.
    """
    paths: dict[str, Path | str] = {
        'evaluation': _get_uri(outputs['Evaluator'], 'evaluation'),
        'training': _get_uri(outputs['Trainer'], 'model_run'),
        'report': _get_uri(outputs['Report'], 'report') / PAGE_FILE,
    }
    pushed_model = artifact_utils.get_single_instance(list(outputs['Pusher']['pushed_model']))
    if pushed_model.get_int_custom_property('pushed'):
        pushed = pushed_model.get_string_custom_property('pushed_destination')
        if not locate(pushed).is_dir():
            raise PipelineError(
                f'The pushed version {pushed} is gone, though an earlier run pushed it; copy it back from '
                f'{pushed_model.uri}, or start over with another --root.'
            )
        paths['pushed'] = pushed
    return paths
