"""What a run's page on the server shows: figures, the confusion matrix, the report, and descriptions.

The page shows two kinds of artifacts by what is in their metadata: `system.Metrics`, a table of names and values, and
`system.ClassificationMetrics`, here a confusion matrix. Of a third, `system.HTML`, it shows the file
(MetricsVisualizations.tsx in frontend/src/components/viewers of kubeflow/pipelines). So some steps get such outputs in
a package. TFX does not know them: the entry point takes them out of what it gives to TFX, and fills them afterwards
from the artifacts that the component wrote.

Called by kubeflow/compile.py, which adds the outputs and descriptions, and by kubeflow/entrypoint.py, which fills the
outputs. Most steps have no such output, so what reads the artifacts imports its heavy modules itself.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.reasons import Reason
from components.serving.versions import PREDICTIONS_FILE
from components.serving_check.report import read_report
from components.settings import find_schema, make_schema
from kubeflow.exit_handler import PARAMETER as WEBHOOK
from pipeline.config import PipelineConfig

Metadata = dict[str, Any]
Artifact = dict[str, Any]

METRICS, CLASSIFICATION, HTML = 'system.Metrics', 'system.ClassificationMetrics', 'system.HTML'
SCHEMA_VERSION = '0.0.1'  # of all three, as kfp.dsl has it
PIPELINE_DESCRIPTION = (
    'Fine-tunes an image classifier on your own images, or on CIFAR-10, and pushes it for TensorFlow Serving. '
    'DataCheck and DataGate refuse bad data before the training. Trainer trains and exports the model. Evaluator '
    'measures it on the test split and compares it with the serving model, which BaselineFinder finds. ServingCheck '
    'asks it as clients will. Pusher pushes it if both have accepted it, and Report writes a page of the whole run. A '
    'run whose model was refused succeeds too; the page, and the metrics of Evaluator and ServingCheck, say why it was '
    'refused.'
)


def _describe_reasons(reasons: Sequence[Reason], accepted: str) -> Metadata:
    """Returns the verdict, and for each bound that was not kept a sentence with its name, value, bound and count.

    Args:
      reasons: all bounds, and faults.
      accepted: the verdict if all bounds are kept.
    """
    broken: Metadata = {}
    for reason in reasons:
        if not reason.is_kept:
            name = '_'.join(('refused', reason.metric, *([reason.slice] if reason.slice else [])))
            broken[name] = '; '.join([*([broken[name]] if name in broken else []), reason.sentence])
    count = sum(not reason.is_kept for reason in reasons)
    verb = 'was' if count == 1 else 'were'
    verdict = f'refused: {count} of {len(reasons)} bounds {verb} not kept' if count else accepted
    return {'verdict': verdict, **broken}


def describe_evaluation(evaluation: Path) -> Metadata:
    """Returns what the model gate measured and decided; of many classes only the lowest recalls.

    Args:
      evaluation: the Evaluator's artifact.
    """
    from components.model_gate.metrics import RECALL
    from components.model_gate.verdict import read_verdict
    from pipeline.report.figures import MAX_CLASSES

    verdict = read_verdict(str(evaluation))
    recalls = [reason for reason in verdict.reasons if reason.metric == RECALL]
    hidden = sorted(recalls, key=lambda reason: reason.value)[MAX_CLASSES:]
    shown = [reason for reason in verdict.reasons if reason not in hidden]
    values = {'_'.join(filter(None, (reason.metric, reason.slice))): reason.value for reason in shown}
    return {
        **_describe_reasons(verdict.reasons, 'blessed'),
        **values,
        'images': verdict.overall.count,
        'baseline': verdict.baseline,
    }


def describe_confusion(evaluation: Path, model: Path) -> Metadata:
    """Returns the confusion matrix of the test split: a row for each true class, a column for each predicted one.

    Of many classes it is the part that the report shows, see `pipeline.report.figures.Matrix`.

    Args:
      evaluation: the Evaluator's artifact.
      model: the Trainer's artifact.
    """
    from tfx.utils import path_utils

    from components.model_contract import read_model_contract
    from components.model_gate.predictions import read_predictions
    from pipeline.report.figures import choose_matrix, count_confusion

    contract = read_model_contract(Path(path_utils.serving_model_path(str(model))))
    kept = read_predictions(evaluation / PREDICTIONS_FILE.name)
    confusion = count_confusion(kept.labels, kept.probabilities.argmax(axis=1), contract.num_classes)
    matrix = choose_matrix(confusion)
    names = [contract.class_names[label] for label in matrix.labels]
    names += ['all others'] * (len(matrix.rows) - len(names))
    return {
        'confusionMatrix': {
            'annotationSpecs': [{'displayName': name} for name in names],
            'rows': [{'row': list(row)} for row in matrix.rows],
        }
    }


def describe_training(model_run: Path) -> Metadata:
    """Returns the Trainer's report, see `trainer.train.TrainingReport`.

    Args:
      model_run: the Trainer's artifact.
    """
    from trainer.train import REPORT_FILE

    report: Metadata = json.loads((model_run / REPORT_FILE).read_text())
    return {name: value for name, value in report.items() if not isinstance(value, list)}  # a page has no tables


def describe_serving_check(blessing: Path) -> Metadata:
    """Returns what the serving check measured and decided.

    Args:
      blessing: ServingCheck's artifact.
    """
    report = read_report(str(blessing))
    batches = {f'p50_ms_of_{size}': value for size, value in report.batch_ms.items()}
    measured = ('size_mb', 'memory_mb', 'load_s', 'p50_ms', 'p99_ms', 'images', 'server')
    accepted = 'servable' if report.is_blessed else report.to_sentence()  # refused without a reason: it was not asked
    return {
        **_describe_reasons(report.reasons, accepted),
        **{name: getattr(report, name) for name in measured},
        **batches,
    }


def read_report_page(report: Path) -> str:
    """Returns the report of the run, in HTML.

    Args:
      report: Report's artifact.
    """
    from pipeline.report.component import REPORT_FILE

    return (report / REPORT_FILE).read_text()


class Page(NamedTuple):
    """An output for the run's page.

    step: the component that gets it.
    schema: METRICS, CLASSIFICATION or HTML.
    sources: the artifacts that it is made from: outputs of the component, and inputs.
    describe: makes the metadata from the sources' folders; that of HTML is the page itself.
    description: of the output, in a sentence.
    """

    step: str
    schema: str
    sources: tuple[str, ...]
    describe: Callable[..., Metadata | str]
    description: str


PAGES = {
    'training_metrics': Page(
        'Trainer', METRICS, ('model_run',), describe_training, 'Accuracy, speed and device of the training.'
    ),
    'evaluation_metrics': Page(
        'Evaluator', METRICS, ('evaluation',), describe_evaluation, 'What the model gate measured, and what it refused.'
    ),
    'confusion_matrix': Page(
        'Evaluator',
        CLASSIFICATION,
        ('evaluation', 'model'),
        describe_confusion,
        'How often each class was taken for each other.',
    ),
    'serving_metrics': Page(
        'ServingCheck', METRICS, ('blessing',), describe_serving_check, 'What requests to the model showed.'
    ),
    'report_page': Page('Report', HTML, ('report',), read_report_page, 'The report of the run.'),
}
"""The outputs by their names, which no component's own output has."""


def add_pages(spec: dict[str, Any]) -> None:
    """Adds the outputs for the run's page, and the descriptions, to a PipelineSpec.

    Args:
      spec: the PipelineSpec as JSON with all of its parameters and tasks; changed in place.
    """
    spec['pipelineInfo']['description'] = PIPELINE_DESCRIPTION
    schema = make_schema(PipelineConfig)
    for name, parameter in spec['root']['inputDefinitions']['parameters'].items():
        if name == WEBHOOK:
            parameter['description'] = 'Address that is told how the run ended.'
        else:  # it has the name of a setting, such as trainer_epochs
            setting = find_schema(schema, name.split('_', 1))
            parameter['description'] = ' '.join(setting['description'].split())
    for name, page in PAGES.items():
        artifacts = spec['components'][page.step]['outputDefinitions']['artifacts']
        kind = {'schemaTitle': page.schema, 'schemaVersion': SCHEMA_VERSION}
        artifacts[name] = {'artifactType': kind, 'description': page.description}


def take_pages(outputs: dict[str, Any]) -> dict[str, Artifact]:
    """Takes the outputs for the run's page out of the outputs that TFX is given.

    Args:
      outputs: `outputs` of an ExecutorInput, changed in place.

    Returns:
      The artifacts by the names of the outputs.
    """
    return {name: outputs['artifacts'].pop(name)['artifacts'][0] for name in PAGES if name in outputs['artifacts']}


def fill_pages(pages: dict[str, Artifact], invocation: dict[str, Any]) -> None:
    """Writes the outputs for the run's page, each into a file of its own: HTML, or JSON.

    The server reads the metrics from the artifact's metadata, which go into TFX's output file as well.

    Args:
      pages: from `take_pages`.
      invocation: the ExecutorInput that TFX was given, with paths in place of URIs.
    """
    if not pages:
        return
    file = Path(invocation['outputs']['outputFile'])
    artifacts = {**invocation.get('inputs', {}).get('artifacts', {}), **invocation['outputs']['artifacts']}
    written = json.loads(file.read_text())
    for name, artifact in pages.items():
        page = PAGES[name]
        found = page.describe(*(Path(artifacts[source]['artifacts'][0]['uri']) for source in page.sources))
        metadata = {} if isinstance(found, str) else {k: _to_value(v) for k, v in found.items() if v is not None}
        Path(artifact['uri']).parent.mkdir(parents=True, exist_ok=True)
        Path(artifact['uri']).write_text(found if isinstance(found, str) else json.dumps(metadata, indent=2))
        entry = {'name': artifact['name'], 'uri': artifact['uri'], 'metadata': metadata}
        written.setdefault('artifacts', {})[name] = {'artifacts': [entry]}
    file.write_text(json.dumps(written))


def _to_value(value: Any) -> Any:
    """Writes a number that is not finite as text: the launcher reads JSON, which has no such numbers."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
