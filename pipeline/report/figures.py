"""The figures of a report, as plain dataclasses: computed from a run's artifacts, and the page's JSON island."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contract import DataContract
from components.data import cifar10
from components.model_gate.slices import read_slices
from components.reasons import Reason
from components.shares import Share, measure_share
from pipeline.compare import Table
from pipeline.report.folders import ComponentState, Folders
from pipeline.report.suspects import find_suspects

_BINS = 15  # of the calibration error, as the model gate has them
MAX_CLASSES = 20  # in a confusion matrix or a chart; of more, those with the most mistakes are shown
_PICTURES_A_CELL, _PICTURES_OF_CELLS, _PICTURES_A_LIST, _PAIRS = 8, 800, 36, 10
_COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_SHARES = ('accuracy', 'recall', 'slice_accuracy')  # metrics of the gates that are shares of images

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gate(Reason):
    """A bound, and the gate that has it; low and high are the 95% interval of a share of images, else None."""

    gate: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Picture:
    """A test image: its position in the split, id, label, the model's answer, and the answer's probability."""

    index: int
    id: str
    truth: str
    answer: str
    probability: float


@dataclass(frozen=True)
class ClassFigures:
    """One class: precision, recall (with interval), F1 and the number of its images; None where it is undefined."""

    name: str
    precision: float | None
    recall: Share
    f1: float | None
    support: int


@dataclass(frozen=True)
class Matrix:
    """The part of a confusion matrix that is shown: all classes, or the MAX_CLASSES with the most mistakes.

    labels: of the classes that are shown, ascending.
    rows: counts by true class and answer; where not all classes are shown, the last row and the last column are those
      of all other classes together.
    """

    labels: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix that is shown, or a pair of the most confused, with its first pictures.

    id: of the pictures in the page.
    """

    id: str
    truth: str
    answer: str
    count: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class OtherRun:
    """The run that takes the place of the serving model: its id, and `pipeline.compare`'s tables of both runs."""

    run: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Flips:
    """Images on which only one of the two models is right, and the change of accuracy with McNemar's interval.

    against: the other model, such as 'version 7'.
    """

    against: str
    change: float
    low: float
    high: float
    newly_right: dict[str, int]
    newly_wrong: dict[str, int]
    right_pictures: tuple[Picture, ...]
    wrong_pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Suspects:
    """Label suspects, the most suspicious first, and the accuracy with and without them."""

    count: int
    with_them: Share
    without_them: Share
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Slice:
    """A quarter of the test images by one of their properties."""

    property: str
    low: float
    high: float
    accuracy: Share


@dataclass(frozen=True)
class Bin:
    """A bin of the reliability diagram: mean confidence and accuracy of the images whose confidence is in it."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error (Guo et al. 2017), its bins, and (coverage, accuracy) by falling confidence."""

    error: float
    bins: tuple[Bin, ...]
    coverage: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TestFigures:
    """What the predictions on the test split say."""

    accuracy: Share
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    matrix: Matrix
    cells: tuple[Cell, ...]
    confused: tuple[Cell, ...]
    mistakes: tuple[Picture, ...]
    suspects: Suspects
    slices: tuple[Slice, ...]
    weakest: Slice | None
    calibration: Calibration


@dataclass(frozen=True)
class Figures:
    """All figures of a report. A part whose artifact does not exist is None or empty."""

    run: str
    pipeline: str
    verdict: str
    command: str
    version: str
    components: tuple[ComponentState, ...]
    gates: tuple[Gate, ...] = ()
    comparison: str = ''
    flips: Flips | None = None
    test: TestFigures | None = None
    training: dict[str, Any] | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    search: dict[str, Any] | None = None
    contract: DataContract = cifar10.CONTRACT
    findings: list[dict[str, Any]] | None = None
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    serving: dict[str, Any] | None = None
    lineage: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    other: OtherRun | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions on the test split beside its images, all in the same order, and the digest of the records."""

    class_names: tuple[str, ...]
    ids: list[str]
    labels: Ints
    probabilities: Floats
    images: list[bytes]
    digest: str = ''

    def __post_init__(self) -> None:
        # Probabilities that are not numbers are wrong answers, as they are for the gate.
        finite = np.isfinite(self.probabilities).all(1)
        object.__setattr__(self, 'answers', np.where(finite, np.nan_to_num(self.probabilities).argmax(1), -1))

    answers: Ints = field(init=False)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is the label."""
        return np.asarray(self.answers == self.labels)

    def show(self, indices: Any, limit: int) -> tuple[Picture, ...]:
        """Returns the first of some images."""
        pictures = []
        for index in indices[:limit]:
            answer = int(self.answers[index])
            name = self.class_names[answer] if answer >= 0 else 'not a number'
            probability = float(self.probabilities[index, answer]) if answer >= 0 else 0.0
            truth = self.class_names[self.labels[index]]
            pictures.append(Picture(int(index), self.ids[index], truth, name, probability))
        return tuple(pictures)


def count_confusion(labels: Ints, answers: Ints, num_classes: int) -> Ints:
    """Counts how often each class, a row, got each answer, a column; answers below 0 are left out."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels[answers >= 0], answers[answers >= 0]), 1)
    return confusion


def choose_matrix(confusion: Ints) -> Matrix:
    """Chooses the part of a confusion matrix that can be read."""
    count = len(confusion)
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind='stable')[:MAX_CLASSES])
    places = np.full(count, len(shown))  # of all other classes
    places[shown] = np.arange(len(shown))
    rows = np.zeros((min(count, len(shown) + 1),) * 2, np.int64)
    np.add.at(rows, (places[:, np.newaxis], places), confusion)
    return Matrix(tuple(shown.tolist()), tuple(tuple(row) for row in rows.tolist()))


def _measure_classes(confusion: Ints, class_names: tuple[str, ...]) -> tuple[ClassFigures, ...]:
    found = []
    for label, name in enumerate(class_names):
        right, support, answered = (
            int(confusion[label, label]),
            int(confusion[label].sum()),
            int(confusion[:, label].sum()),
        )
        precision = right / answered if answered else None
        f1 = 2 * right / (support + answered) if support + answered else None
        found.append(ClassFigures(name, precision, measure_share(right, support), f1, support))
    return tuple(found)


def _measure_calibration(confidences: Floats, right: npt.NDArray[np.bool_]) -> Calibration:
    bins, error, count = [], 0.0, len(right)
    places = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    for place in np.unique(places):
        inside = places == place
        confidence, accuracy = float(confidences[inside].mean()), float(right[inside].mean())
        error += abs(confidence - accuracy) * int(inside.sum()) / count
        bins.append(Bin(place / _BINS, (place + 1) / _BINS, confidence, accuracy, int(inside.sum())))
    ordered = right[np.argsort(-confidences, kind='stable')]
    kept = [max(1, round(share * count)) for share in _COVERAGES]
    coverage = tuple((share, float(ordered[:number].mean())) for share, number in zip(_COVERAGES, kept, strict=True))
    return Calibration(error, tuple(bins), coverage)


def list_slices(evaluation: Path) -> tuple[Slice, ...]:
    """Lists the slices that the Evaluator measured."""
    return tuple(
        Slice(each.property, each.low, each.high, measure_share(each.right, each.count))
        for each in read_slices(evaluation)
    )


def _measure_suspects(predictions: Predictions) -> Suspects:
    right, count = predictions.right, len(predictions.labels)
    found = find_suspects(predictions.labels, np.nan_to_num(predictions.probabilities))
    rest = np.setdiff1d(np.arange(count), found)
    return Suspects(
        len(found),
        measure_share(int(right.sum()), count),
        measure_share(int(right[rest].sum()), len(rest)),
        tuple(found.tolist()),
        tuple(predictions.ids[index] for index in found),
        predictions.show(found, _PICTURES_A_LIST),
    )


def _find_pairs(confusion: Ints) -> list[tuple[int, int]]:
    """Returns the most confused pairs of a class and its answer, the most frequent first."""
    wrong = [(int(truth), int(answer)) for truth, answer in np.argwhere(confusion) if truth != answer]
    return sorted(wrong, key=lambda pair: -confusion[pair])[:_PAIRS]


def _show_cells(
    predictions: Predictions, confidences: Floats, confusion: Ints, matrix: Matrix, pairs: list[tuple[int, int]]
) -> dict[tuple[int, int], Cell]:
    """Shows the images of the cells that the page links to, by label and answer; all together not too many."""
    shown = [(truth, answer) for truth in matrix.labels for answer in matrix.labels if confusion[truth, answer]]
    limit = max(1, min(_PICTURES_A_CELL, _PICTURES_OF_CELLS // max(1, len(shown))))
    cells = {}
    for truth, answer in sorted({*shown, *pairs}):
        inside = np.flatnonzero((predictions.labels == truth) & (predictions.answers == answer))
        inside = inside[np.argsort(-confidences[inside], kind='stable')]
        names = predictions.class_names[truth], predictions.class_names[answer]
        cells[truth, answer] = Cell(f'cell-{truth}-{answer}', *names, len(inside), predictions.show(inside, limit))
    return cells


def measure_test(predictions: Predictions, slices: tuple[Slice, ...]) -> TestFigures:
    """Computes everything that follows from the predictions on the test split.

    Args:
      predictions: of the model.
      slices: what the Evaluator measured of the same predictions.
    """
    labels, answers, right = predictions.labels, predictions.answers, predictions.right
    confidences = np.nan_to_num(predictions.probabilities).max(1)
    confusion = count_confusion(labels, answers, len(predictions.class_names))
    matrix = choose_matrix(confusion)
    pairs = _find_pairs(confusion)
    cells = _show_cells(predictions, confidences, confusion, matrix, pairs)
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-confidences[wrong], kind='stable')]
    return TestFigures(
        accuracy=measure_share(int(right.sum()), len(right)),
        classes=_measure_classes(confusion, predictions.class_names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        matrix=matrix,
        cells=tuple(cells.values()),
        confused=tuple(cells[pair] for pair in pairs),
        mistakes=predictions.show(wrong, _PICTURES_A_LIST),
        suspects=_measure_suspects(predictions),
        slices=slices,
        weakest=min(slices, key=lambda part: part.accuracy.value or 0.0, default=None),
        calibration=_measure_calibration(confidences, right),
    )


def measure_flips(predictions: Predictions, baseline: Floats, against: str, confidence: float) -> Flips:
    """Compares the answers with those of another model, on the same images in the same order."""
    from components.model_gate.predictions import find_right
    from components.model_gate.verdict import measure_change

    other = find_right(baseline, predictions.labels)
    better, worse = np.flatnonzero(predictions.right & ~other), np.flatnonzero(~predictions.right & other)
    change = measure_change(len(better), len(worse), len(other), confidence)

    def count_classes(indices: Ints) -> dict[str, int]:
        counts = np.bincount(predictions.labels[indices], minlength=len(predictions.class_names)).tolist()
        return dict(zip(predictions.class_names, counts, strict=True))

    order = np.argsort(predictions.labels, kind='stable')
    right, wrong = (order[np.isin(order, each)] for each in (better, worse))
    shown = (predictions.show(each, _PICTURES_A_LIST) for each in (right, wrong))
    return Flips(against, *change, count_classes(better), count_classes(worse), *shown)


def list_gates(folders: Folders) -> tuple[Gate, ...]:
    """Lists the bounds of the model gate and of the serving check."""
    gates = []
    for gate, name, file in (
        ('model gate', 'Evaluator.evaluation', 'verdict.json'),
        ('serving check', 'ServingCheck.blessing', 'report.json'),
    ):
        path = folders.find(name, file)
        for reason in read_json(path)['reasons'] if path else ():
            low = high = None
            if reason['metric'] in _SHARES:
                share = measure_share(round(reason['value'] * reason['count']), reason['count'])
                low, high = share.low, share.high
            gates.append(Gate(gate=gate, low=low, high=high, **reason))
    return tuple(gates)


def read_json(file: Path) -> Any:
    """Reads a JSON file of an artifact."""
    return json.loads(file.read_text())
