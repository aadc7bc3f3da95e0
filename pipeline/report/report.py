"""The report of a run: reads the artifacts, measures, and writes one HTML file and the list of label suspects.

`make_report` depends on artifact folders alone. The command `report` finds them with `write_report`,
and `compare` with `write_comparison`.
"""

import csv
import dataclasses
import hashlib
import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from components import features
from components.contract import DataContract
from components.contract_schema import SCHEMA_NAME, load_contract
from components.data import cifar10
from components.data.manifest import MANIFEST_NAME
from components.errors import DataError, StorageError, UsageError
from components.hyperparameters import TRIALS_FILE
from components.model_contract import read_model_contract
from components.staging import write_text
from pipeline.compare import Table, tabulate
from pipeline.imports import TENSORFLOW_MODULES, track_imports
from pipeline.report import figures as measured
from pipeline.report.figures import Figures, Predictions
from pipeline.report.folders import ComponentState, Folders, find_folders, list_folders
from pipeline.report.page import Shown, render_page
from pipeline.report.pictures import is_image
from pipeline.run_history import Run

_PREDICTIONS_FILE = 'test_predictions.npz'
_SAMPLES, _SAMPLES_A_CLASS = 50, 5  # at most
_NAMED_BOUNDS = 10  # in the verdict
_MODEL_FILE = 'Format-Serving/saved_model.pb'


def _read_contract(folders: Folders) -> DataContract:
    """Reads what the model or, before there was one, the schema says of the data."""
    model, schema_file = (
        folders.find('Trainer.model', _MODEL_FILE),
        folders.find('CuratedSchemaGen.schema', SCHEMA_NAME),
    )
    if model is not None:
        return read_model_contract(model.parent)
    return load_contract(schema_file) if schema_file is not None else cifar10.CONTRACT


def _read_predictions(folders: Folders, class_names: tuple[str, ...]) -> Predictions | None:
    """Reads the Evaluator's predictions and the images that they belong to; None if a part is missing."""
    file, examples = folders.find('Evaluator.evaluation', _PREDICTIONS_FILE), folders.find('ImportExampleGen.examples')
    if file is None or examples is None:
        return None
    with track_imports(TENSORFLOW_MODULES):
        from components.model_gate.predictions import read_images, read_predictions, read_records

    try:
        kept = read_predictions(file)
    except ValueError as error:
        raise DataError(f'{file} is damaged ({error}); run the pipeline again.') from error
    records = read_records([str(examples / f'Split-{features.TEST_SPLIT}' / '*.gz')])
    if str(kept.digest) != records.digest:
        raise DataError(f'{file} holds predictions for other images than {examples}; run the pipeline again.')
    ids = [name.decode(errors='replace') or f'record {index}' for index, name in enumerate(kept.ids)]
    return Predictions(class_names, ids, kept.labels, kept.probabilities, read_images(records), records.digest)


def _find_serving_predictions(folders: Folders) -> tuple[str, Path] | None:
    """Finds the predictions that the model that was serving has kept, and says in words which model that is."""
    info = folders.find('BaselineFinder.baseline', 'baseline.json')
    version = measured.read_json(info)['version'] if info else None
    files = sorted(folders.artifacts['BaselineFinder.baseline'].rglob(_PREDICTIONS_FILE)) if info else []
    return (f'version {version}', files[0]) if version is not None and files else None


def _measure_flips(folders: Folders, predictions: Predictions, against: str, file: Path) -> measured.Flips | None:
    """Compares with another model's predictions; None if they are damaged, or for other records."""
    from components.model_gate.predictions import read_predictions

    try:
        kept = read_predictions(file)
    except ValueError:
        return None  # the Evaluator predicted the images again
    if str(kept.digest) != predictions.digest:
        return None
    confidence = folders.settings.get('gate', {}).get('confidence', 0.95)
    return measured.measure_flips(predictions, kept.probabilities, against, confidence)


def _compare_answers(
    folders: Folders, predictions: Predictions | None, other: Folders | None, comparison: str
) -> tuple[measured.Flips | None, str]:
    """Compares with the model that was serving, or with another run's.

    Args:
      folders: what the run wrote.
      predictions: its own.
      other: what the other run wrote; None for the model that was serving.
      comparison: what the Evaluator says of the model that was serving.

    Returns:
      The flips, and what to say of the comparison where there are none.
    """
    if other is None:
        found = _find_serving_predictions(folders)
        return _measure_flips(folders, predictions, *found) if predictions and found else None, comparison
    file = other.find('Evaluator.evaluation', _PREDICTIONS_FILE)
    if predictions is None or file is None:
        run = folders.run if predictions is None else other.run
        return None, f'run {run} has no predictions on the test split, or they are gone, so there are no flips'
    flips = _measure_flips(folders, predictions, f'run {other.run}', file)
    return flips, f'the predictions of run {other.run} are for other test images, or damaged, so there are no flips'


def _count_labels(folders: Folders, class_names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Counts the records by split and class, in the statistics."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    counts = {}
    for split in features.SPLITS:
        file = folders.find('StatisticsGen.statistics', f'Split-{split}/FeatureStats.pb')
        if file:
            found = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes()).datasets[0]
            buckets = [
                bucket
                for feature in found.features
                if list(feature.path.step) == [features.LABEL_KEY]
                for bucket in feature.string_stats.rank_histogram.buckets
            ]
            by_label = {bucket.label: int(bucket.sample_count) for bucket in buckets}
            counts[split] = {name: by_label.get(str(label), 0) for label, name in enumerate(class_names)}
    return counts


def _measure_speeds(
    components: tuple[ComponentState, ...], labels: dict[str, dict[str, int]], training: dict[str, Any] | None
) -> tuple[ComponentState, ...]:
    """Adds the images a second of the components that read images."""
    counts = {split: sum(by_class.values()) for split, by_class in labels.items()}
    read = dict.fromkeys(('ImportExampleGen', 'StatisticsGen', 'DataCheck'), sum(counts.values()))
    read['Evaluator'] = counts.get(features.TEST_SPLIT, 0)

    def measure(each: ComponentState) -> float | None:
        if each.state != 'complete':
            return None
        if each.name == 'Trainer':
            return training['images_per_s'] if training else None
        return read[each.name] / each.seconds if read.get(each.name) and each.seconds else None

    return tuple(dataclasses.replace(each, images_per_s=measure(each)) for each in components)


def _describe_command(folders: Folders) -> str:
    """Makes the command that repeats the run: its preset, its data, and the settings that differ from the preset."""
    from pipeline.config import PRESETS
    from pipeline.overrides import flatten_settings, list_fields

    names = {make('ROOT').name: name for name, make in PRESETS.items()}
    preset = names.get(folders.pipeline)
    words = ['python -m pipeline run', f'--preset {preset}' if preset else '']
    words.append(f'--data {shlex.quote(folders.data)}' if folders.data and preset != 'sample' else '')
    usual = list_fields(PRESETS[preset]('ROOT')) if preset else {}
    for key, value in flatten_settings(folders.settings).items():
        expected = list(usual[key]) if isinstance(usual.get(key), tuple) else usual.get(key)
        if key in usual and value != expected:
            text = ','.join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f'--set {shlex.quote(f"{key}={text}")}')
    return ' '.join(word for word in words if word)


def _describe_verdict(folders: Folders, gates: tuple[measured.Gate, ...], findings: list[Any] | None) -> str:
    """Says in a sentence how the run ended."""
    errors = sum(finding['severity'] == 'error' for finding in findings or ())
    broken = [gate.sentence for gate in gates if not gate.is_kept]
    failed = [each.name for each in folders.components if each.state not in ('complete', 'cached')]
    if folders.version:
        return f'The model was pushed as version {folders.version}: {gates[0].sentence}, and every bound was kept.'
    if errors:
        return f'The data was refused with {errors} error{"s" if errors > 1 else ""}, and nothing was trained.'
    if broken:
        bounds = '1 bound was' if len(broken) == 1 else f'{len(broken)} bounds were'
        more = f'; and {len(broken) - _NAMED_BOUNDS} more' if len(broken) > _NAMED_BOUNDS else ''
        return f'Nothing was pushed: {bounds} not kept ({"; ".join(broken[:_NAMED_BOUNDS])}{more}).'
    if failed:
        return f'Nothing was pushed: {failed[0]} did not finish. Below is what there is.'
    return 'Nothing was pushed. Below is what there is.'


def _trace_lineage(folders: Folders) -> dict[str, str]:
    """Lists the SHA-256 of the files that tie data, model and version together, and where the artifacts are."""
    lineage = {'data': folders.data} if folders.data else {}
    for title, name, file in (
        ('data manifest', 'ImportExampleGen.examples', MANIFEST_NAME),
        ('schema', 'CuratedSchemaGen.schema', 'schema.pbtxt'),
        ('test predictions', 'Evaluator.evaluation', _PREDICTIONS_FILE),
        ('model', 'Trainer.model', _MODEL_FILE),
        ('weights', 'Trainer.model', 'Format-Serving/variables/variables.data-00000-of-00001'),
    ):
        path = folders.find(name, file)
        if path:
            with path.open('rb') as stream:
                lineage[title] = f'sha256 {hashlib.file_digest(stream, "sha256").hexdigest()}'
    lineage |= {f'source of {name}': f'digest {digest}' for name, digest in folders.digests.items() if digest}
    return lineage | ({'version': folders.version} if folders.version else {})


def measure_run(
    folders: Folders, contract: DataContract, predictions: Predictions | None, other: Folders | None = None
) -> Figures:
    """Computes all figures of a run from what it wrote, compared with the model that was serving, or another run's."""
    gates = measured.list_gates(folders)
    paths = {
        'verdict': folders.find('Evaluator.evaluation', 'verdict.json'),
        'training': folders.find('Trainer.model_run', 'report.json'),
        'epochs': folders.find('Trainer.model_run', 'history.json'),
        'search': folders.find('Tuner.tuner_results', TRIALS_FILE),
        'data': folders.find('DataCheck.report', 'data_report.json'),
        'serving': folders.find('ServingCheck.blessing', 'report.json'),
    }
    read: dict[str, Any] = {name: measured.read_json(path) if path else None for name, path in paths.items()}
    findings = read['data']['findings'] if read['data'] else None
    evaluation = folders.find('Evaluator.evaluation')
    slices = measured.list_slices(evaluation) if evaluation else ()
    test = measured.measure_test(predictions, slices) if predictions else None
    labels = _count_labels(folders, contract.class_names)
    verdict = read['verdict']['baseline'] if read['verdict'] else ''
    flips, comparison = _compare_answers(folders, predictions, other, verdict)
    return Figures(
        run=folders.run,
        pipeline=folders.pipeline,
        verdict=_describe_verdict(folders, gates, findings),
        command=_describe_command(folders),
        version=folders.version,
        contract=contract,
        components=_measure_speeds(folders.components, labels, read['training']),
        gates=gates,
        comparison=comparison,
        flips=flips,
        test=test,
        training=read['training'],
        epochs=read['epochs'] or [],
        search=read['search'],
        findings=findings,
        labels=labels,
        serving=read['serving'],
        lineage=_trace_lineage(folders),
        settings=folders.settings,
    )


def _list_suspects(predictions: Predictions, figures: Figures) -> str:
    """Makes the CSV file for a labeller: id, given label, the model's answer and its probability."""
    assert figures.test is not None
    rows = predictions.show(figures.test.suspects.indices, len(predictions.ids))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(('id', 'label', 'answer', 'probability'))
    writer.writerows((row.id, row.truth, row.answer, f'{row.probability:.4f}') for row in rows)
    return out.getvalue()


def _choose_samples(predictions: Predictions) -> tuple[measured.Picture, ...]:
    """Chooses some images of each class, or, of many classes, one of some."""
    count = len(predictions.class_names)
    labels = np.linspace(0, count - 1, min(count, _SAMPLES)).astype(int)
    each = min(_SAMPLES_A_CLASS, _SAMPLES // len(labels))
    chosen = np.concatenate([np.flatnonzero(predictions.labels == label)[:each] for label in labels])
    return predictions.show(chosen, len(chosen))


def _show_network(
    folders: Folders, figures: Figures, samples: tuple[measured.Picture, ...], predictions: Predictions | None
) -> Shown:
    """Shows samples at the network's input size, and where it looked in its mistakes, if the model says it."""
    model = folders.find('Trainer.model', _MODEL_FILE)
    if figures.test is None or predictions is None or model is None:
        return Shown()
    images, answers = predictions.images, predictions.answers
    mistakes = {each.index: int(answers[each.index]) for each in figures.test.mistakes if answers[each.index] >= 0}
    labels = {each.index: features.NO_LABEL for each in samples} | mistakes
    labels = {index: label for index, label in labels.items() if is_image(images[index])}
    if not labels:
        return Shown()
    from pipeline.report.network import explain_images

    found = explain_images(model.parent, [images[index] for index in labels], list(labels.values()))
    if found is None:
        return Shown()
    places = {index: place for place, index in enumerate(labels)}
    return Shown(
        inputs={index: found.seen[place] for index, place in places.items()},
        cams={index: found.heat_maps[place] for index, place in places.items() if index in mistakes},
    )


def make_report(folders: Folders, out: Path, other: Folders | None = None, tables: tuple[Table, ...] = ()) -> Figures:
    """Writes the report of a run from its artifacts; nothing is evaluated again.

    Beside the page is written, if there are predictions, a CSV file with the label suspects.

    Args:
      folders: what the run wrote; a part of the page whose artifact is missing says so.
      out: the HTML file to write; its folder exists.
      other: what another run wrote, to compare with in place of the model that was serving.
      tables: both runs side by side, from `pipeline.compare`.

    Returns:
      The figures of the page.

    Raises:
      DataError: the predictions are damaged, or for different images.
      StorageError: the page cannot be written.
    """
    contract = _read_contract(folders)
    predictions = _read_predictions(folders, contract.class_names)
    figures = measure_run(folders, contract, predictions, other)
    if other is not None:
        figures = dataclasses.replace(figures, other=measured.OtherRun(other.run, tables))
    images = predictions.images if predictions else []
    samples = _choose_samples(predictions) if predictions else ()
    suspects = out.with_name(f'{out.stem}-suspects.csv')
    try:
        if predictions:
            write_text(suspects, _list_suspects(predictions, figures))
        shown = _show_network(folders, figures, samples, predictions)
        write_text(out, render_page(figures, samples, images, shown, suspects.name))
    except OSError as error:
        raise StorageError(f'{out} cannot be written: {error.strerror}.') from error
    return figures


def _check_out(out: Path) -> None:
    if out.suffix != '.html' or not out.parent.is_dir():
        raise UsageError(f'--out takes a file that ends in .html, in a folder that exists. Received: {out}')


def write_comparison(root: Path, first: Run, second: Run, out: Path) -> Figures:
    """Writes the report of a run with another run in the place of the model that was serving.

    Args:
      root: the folder that was given to `run`.
      first: the run to compare with.
      second: the run that is reported.
      out: the HTML file.

    Returns:
      The page's figures.

    Raises:
      UsageError: a run ended before its first component, or `out` is not an HTML file in a folder that exists.
      DataError, StorageError: see `make_report`.
    """
    _check_out(out)
    return make_report(list_folders(second, root), out, list_folders(first, root), tabulate(first, second))


def write_report(root: Path, run: str | None, out: Path | None) -> tuple[Path, Figures]:
    """Writes the report of a run in a folder of results.

    Args:
      root: the folder that was given to `run`.
      run: see `find_folders`; None for the newest.
      out: the HTML file; None for `report-RUN.html` in the root.

    Returns:
      The file, and the page's figures.

    Raises:
      UsageError: there is no such run, or `out` is not an HTML file in a folder that exists.
    """
    if out is not None:
        _check_out(out)
    folders = find_folders(root, run)
    file = out or root / f'report-{folders.run}.html'
    return file, make_report(folders, file)
