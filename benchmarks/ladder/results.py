"""The results of the ladder: one JSON file for each training, the statistics of a row, and the table."""

import dataclasses
import json
import statistics
from pathlib import Path

from benchmarks.ladder.rows import PRESET, Job, Row
from components.shares import measure_share
from components.staging import write_text

BEGIN, END = '<!-- The ladder begins: made by benchmarks.ladder -->', '<!-- The ladder ends -->'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What one training gave; written as JSON."""

    row: str
    """Name of the row."""
    settings: tuple[str, ...]
    """The row's settings when it was measured."""
    seed: int
    """The setting `trainer.seed`."""
    images: dict[str, int]
    """Images in each split."""
    start: str
    """Where the backbone's weights come from, in the words of the table."""
    weights_file: str | None
    """Name of the weights file; None for Keras' download and for random weights."""
    epochs: int
    """Epochs that were trained."""
    pass_s: float
    """Seconds of the frozen pass over `train` and `val`, measured once for all trainings that share it; 0 without a
    cache."""
    training_s: float
    """Seconds of the epochs, validation included."""
    val_accuracy: float
    """Accuracy on `val` in the best epoch, 0-1."""
    test_right: int
    """Images of `test` that the model of the best epoch gives the right class."""
    calibration_error: float
    """The model gate's calibration error on `test`, 0-1."""
    precision: str
    """Arithmetic of the training."""
    machine: str
    """The CPU and its number of cores, or the GPU."""
    date: str
    """Day on which it was measured, as YYYY-MM-DD."""

    @property
    def test_accuracy(self) -> float:
        """Accuracy on `test`, 0-1."""
        return self.test_right / self.images['test']


def locate_result(out: Path, job: Job) -> Path:
    """Returns the file of a training's result."""
    return out / f'{job.row.name}-seed{job.seed}.json'


def write_result(out: Path, job: Job, result: Result) -> None:
    """Writes a result, at once or not at all."""
    write_text(locate_result(out, job), json.dumps(dataclasses.asdict(result), indent=2) + '\n')


def read_result(out: Path, job: Job) -> Result | None:
    """Reads a training's result; None if it was not measured, or measured when the row had other settings."""
    file = locate_result(out, job)
    if not file.exists():
        return None
    fields = json.loads(file.read_text())
    result = Result(**{**fields, 'settings': tuple(fields['settings'])})
    return result if result.settings == job.row.settings else None


def read_row(out: Path, row: Row) -> list[Result]:
    """Reads the results of a row for all seeds that were measured, in their order."""
    seeds = sorted(int(file.stem.removeprefix(f'{row.name}-seed')) for file in out.glob(f'{row.name}-seed*.json'))
    found = [read_result(out, Job(row, seed)) for seed in seeds]
    return [result for result in found if result is not None]


def _format_row(row: Row, results: list[Result]) -> str:
    """Makes a row's line of the table."""
    if not results:
        return f'| `{row.name}` | {row.recipe} | not run | | | | | | |'
    test, right = results[0].images['test'], statistics.mean(result.test_right for result in results)
    share = measure_share(round(right), test)
    accuracies = [result.test_accuracy for result in results]
    spread = f'{len(results)}: {min(accuracies):.3f} to {max(accuracies):.3f}' if len(results) > 1 else '1'
    epochs = '-'.join(str(number) for number in sorted({result.epochs for result in results}))
    cells = (
        f'`{row.name}`',
        row.recipe,
        results[0].start,
        f'{results[0].pass_s:.0f} + {statistics.median(result.training_s for result in results):.0f}',
        epochs,
        f'{statistics.mean(result.val_accuracy for result in results):.3f}',
        f'**{right / test:.3f}** ({share.low:.3f} to {share.high:.3f})',
        spread,
        f'{statistics.mean(result.calibration_error for result in results):.3f}',
    )
    return f'| {" | ".join(cells)} |'


def _list_origins(measured: dict[Row, list[Result]]) -> list[str]:
    """Says on which machine, when and with how many images the rows were measured."""
    origins: dict[tuple[str, str, tuple[tuple[str, int], ...]], list[Result]] = {}
    for results in measured.values():
        for result in results:
            origins.setdefault((result.machine, result.precision, tuple(result.images.items())), []).append(result)
    lines = []
    for (machine, precision, images), results in origins.items():
        dates = sorted({result.date for result in results})
        names = list(dict.fromkeys(f'`{result.row}`' for result in results))
        when = dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'
        counts = ', '.join(f'{count:,} {split}' for split, count in images)
        which = 'All rows' if len(origins) == 1 else ', '.join(names)
        lines.append(f'- {which}: {machine}; {precision}; {when}; {counts} images.')
    return lines


def make_table(out: Path, rows: list[Row]) -> str:
    """Makes the table of the rows in Markdown, and below it the settings of each row."""
    measured = {row: read_row(out, row) for row in rows}
    lines = [
        '| row | recipe | start | seconds | epochs | val | test (95%) | seeds | calibration error |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
        *(_format_row(row, results) for row, results in measured.items()),
        '',
        *_list_origins(measured),
        '',
        f'| row | what it adds to `--preset {PRESET}` |',
        '| --- | --- |',
        *(f'| `{row.name}` | `{" ".join(f"--set {setting}" for setting in row.settings)}` |' for row in rows),
    ]
    return '\n'.join(lines).replace('\n\n\n', '\n\n')


def rewrite_document(document: Path, table: str) -> None:
    """Puts the table between the markers BEGIN and END of a document.

    Raises:
      ValueError: The document does not have both markers, in this order.
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{document} must have the lines "{BEGIN}" and "{END}", between which the table is written.')
    document.write_text(f'{before}{BEGIN}\n\n{table}\n\n{END}{after}')
