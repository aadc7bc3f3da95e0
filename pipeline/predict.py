"""The `predict` command: classifies image files with a pushed model, in this process or on a server."""

import collections
import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from PIL import Image

from components import features
from components.errors import UsageError
from components.progress import track
from components.staging import stage_folder
from pipeline.classifier import Answer, Classifier, Prediction, Refusal
from pipeline.image_sizes import MOST_TIMES_LARGER, MOST_TIMES_SMALLER, is_tiny, is_too_large, is_too_small
from pipeline.image_sources import CSV_COLUMN, Source, Sources
from pipeline.reporter import Reporter

Format = Literal['json', 'csv']

_NAMED = 5  # files that were passed over and are named


class Output(NamedTuple):
    """How the answers are written."""

    format: Format
    """'json' for a JSON object on each line, 'csv' for a table with a header."""
    top: int
    """How many of the most probable classes are named; 0 for the most probable one alone."""
    file: Path | None
    """The file to write, whole or not at all; None for standard output."""


def make_output(format: Format, top: int | None, file: str | None) -> Output:
    """Makes an Output of what the command line has, and checks it before anything takes time.

    Raises:
      UsageError: `top` is not a number of classes, or `file` is not in a folder that exists. Whether there are so many
        classes is known when the model answers.
    """
    if top is not None and top < 1:
        raise UsageError(f'--top takes a number from 1 to the number of classes. Received: {top}')
    out = Path(file).absolute() if file is not None else None
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise UsageError(f'--out takes a file to write, in a folder that exists. Received: {file}')
    return Output(format, top or 0, out)


class _Item(NamedTuple):
    """An image with its answer."""

    source: Source
    answer: Answer
    size: tuple[int, int] | None
    """Width and height in pixels, before it is turned by its Exif orientation; None if that is not known."""
    class_names: Sequence[str] | None = None
    """The names of all classes, if more than the most probable one are to be named and they are known."""


def _measure_size(image: bytes) -> tuple[int, int] | None:
    """Reads width and height from the head of an image file; None if there is none, or if they are absurd."""
    try:
        size: tuple[int, int] = Image.open(io.BytesIO(image)).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    return size


def _classify_files(classifier: Classifier, sources: Sequence[Source]) -> list[_Item]:
    """Reads and classifies a batch of files."""
    contents: list[bytes | Refusal] = []
    for source in sources:
        try:
            contents.append(source.file.read_bytes())
        except OSError as error:
            contents.append(Refusal(f'cannot be read: {error.strerror}'))
    answers = iter(classifier.classify([content for content in contents if isinstance(content, bytes)]))
    return [
        _Item(source, content, None)
        if isinstance(content, Refusal)
        else _Item(source, next(answers), _measure_size(content))
        for source, content in zip(sources, contents, strict=True)
    ]


def _classify_in_order(classifier: Classifier, sources: Sequence[Source]) -> Generator[list[_Item]]:
    """Yields the batches in the order of the sources, while some threads read and classify the next ones."""
    size, threads = classifier.batch_size, classifier.concurrency
    batches = iter([sources[begin : begin + size] for begin in range(0, len(sources), size)])
    pool = ThreadPoolExecutor(threads)
    try:
        asked = collections.deque(
            pool.submit(_classify_files, classifier, batch) for batch in itertools.islice(batches, threads + 1)
        )
        while asked:
            items = asked.popleft().result()
            asked.extend(pool.submit(_classify_files, classifier, batch) for batch in itertools.islice(batches, 1))
            yield items
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nobody waits for a batch


def _rank(answer: Prediction, count: int, class_names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Returns the most probable classes with their probabilities, at least one; a name that is not known is None."""
    order = sorted(range(len(answer.probabilities)), key=answer.probabilities.__getitem__, reverse=True)
    order = [answer.label, *(label for label in order if label != answer.label)]
    ranked = [
        {
            features.OUTPUT_CLASS_NAME: class_names[label] if class_names else None,
            features.OUTPUT_LABEL: label,
            'probability': round(answer.probabilities[label], 6),
        }
        for label in order[: max(count, 1)]
    ]
    ranked[0][features.OUTPUT_CLASS_NAME] = answer.class_name
    return ranked


def _explain(source: Source, answer: Refusal) -> str:
    return f'{source.name} {answer.reason.rstrip(".")}.'


def _make_object(item: _Item, top: int) -> dict[str, Any]:
    """Makes the JSON object of an image."""
    answer = item.answer
    made: dict[str, Any] = {CSV_COLUMN: item.source.name}
    if isinstance(answer, Refusal):
        made['error'] = _explain(item.source, answer)
    else:
        made |= {
            features.OUTPUT_CLASS_NAME: answer.class_name,
            features.OUTPUT_LABEL: answer.label,
            features.OUTPUT_PROBABILITIES: [round(probability, 6) for probability in answer.probabilities],
            'version': answer.version,
        }
        if top:
            made['top'] = _rank(answer, top, item.class_names)
    return {**made, 'row': item.source.row} if item.source.row else made


def _make_row(item: _Item, top: int) -> dict[str, Any]:
    """Makes the row of a CSV file, by column."""
    answer = item.answer
    row: dict[str, Any] = {CSV_COLUMN: item.source.name}
    if isinstance(answer, Refusal):
        row['error'] = _explain(item.source, answer)
    else:
        row['version'] = answer.version
        for place, ranked in enumerate(_rank(answer, top, item.class_names), 1):
            row |= {_name_column(key, place): value for key, value in ranked.items()}
    return row | {f'row.{column}': value for column, value in item.source.row.items()}


def _name_column(key: str, place: int) -> str:
    return key if place == 1 else f'{key}_{place}'


def _make_formatter(output: Output, columns: list[str]) -> Callable[[list[_Item]], str]:
    """Returns what makes whole lines of a batch; those of a CSV table begin with the header."""
    if output.format == 'json':
        return lambda items: ''.join(f'{json.dumps(_make_object(item, output.top))}\n' for item in items)
    keys = (features.OUTPUT_CLASS_NAME, features.OUTPUT_LABEL, 'probability')
    ranked = [_name_column(key, place) for place in range(1, max(output.top, 1) + 1) for key in keys]
    names = [CSV_COLUMN, *ranked, 'version', 'error', *(f'row.{column}' for column in columns)]
    page = io.StringIO()
    writer = csv.DictWriter(page, names, lineterminator='\n')
    writer.writeheader()

    def format_rows(items: list[_Item]) -> str:
        writer.writerows(_make_row(item, output.top) for item in items)
        text = page.getvalue()
        page.seek(0)
        page.truncate()
        return text

    return format_rows


def _name_classes(classifier: Classifier, items: list[_Item], top: int) -> list[_Item]:
    """Adds the names of all classes to the answers, if more than the most probable one are to be named.

    Raises:
      UsageError: the model has fewer classes than are to be named.
    """
    if top <= 1:
        return items
    named = []
    for item in items:
        if isinstance(item.answer, Prediction):
            count = len(item.answer.probabilities)
            if top > count:
                raise UsageError(
                    f'--top takes a number from 1 to {count}, the number of classes of {classifier.name}. Received: '
                    f'{top}'
                )
            item = item._replace(class_names=classifier.name_classes(item.answer))
        named.append(item)
    return named


class _Watch:
    """Follows the answers, and keeps what has to be said of them."""

    def __init__(self, classifier: Classifier, reporter: Reporter, top: int):
        self.failures: list[str] = []
        self._classifier, self._reporter, self._top = classifier, reporter, top
        self._versions: list[int | None] = []
        self._has_unnamed = False
        self._count = self._larger = self._smaller = 0

    def follow(self, item: _Item) -> None:
        """Follows one answer; says it when a version answers that has not answered before."""
        if isinstance(item.answer, Refusal):
            self.failures.append(_explain(item.source, item.answer))
        elif not self._versions or item.answer.version != self._versions[-1]:
            self._note_version(item.answer.version, item.source.name)
        if self._top > 1 and isinstance(item.answer, Prediction) and item.class_names is None:
            self._note_unnamed()
        if item.size and self._classifier.image_size:
            self._count += 1
            self._larger += is_too_large(max(item.size), self._classifier.image_size)
            self._smaller += is_too_small(min(item.size), self._classifier.image_size)

    def _note_unnamed(self) -> None:
        if not self._has_unnamed:
            self._reporter.note(
                f'{self._classifier.name} does not say the names of its classes, because its model has no signature '
                f'{features.SIGNATURE_CLASS_NAMES}; only the most probable class has a name, the others have labels'
            )
        self._has_unnamed = True

    def _note_version(self, version: int | None, image: str) -> None:
        answers = f'{self._classifier.name} answers; which version it is, is not known'
        if version is not None:
            answers = f'version {version} of {self._classifier.name} answers'
        self._reporter.note(f'{answers}, from {image} on' if self._versions else answers)
        self._versions.append(version)

    def note_sizes(self) -> None:
        """Warns, once, of images that are far from the size of the training images."""
        if not self._larger and not self._smaller:
            return
        size = self._classifier.image_size
        assert size is not None
        far = [(self._larger, f'more than {MOST_TIMES_LARGER} times larger')]
        far.append((self._smaller, f'more than {MOST_TIMES_SMALLER} times smaller' if is_tiny(size) else 'smaller'))
        said = [f'{count:,} of {self._count:,} images are {how}' for count, how in far if count]
        sides = f'{size}x{size} pixels of' if is_tiny(size) else f'{size} pixels of the shorter side of'
        self._reporter.note(
            f'{" and ".join(said)} than the {sides} the training images, to which they are resized; the accuracy that '
            'was measured may not hold for them'
        )


@contextlib.contextmanager
def _open_file(file: Path) -> Iterator[TextIO]:
    """Gives a stream of which the file appears, whole, when the context ends without an error.

    Raises:
      UsageError: it cannot be written.
    """
    try:
        with stage_folder(file) as folder:
            staged = folder / file.name
            with staged.open('w') as stream:
                yield stream
            staged.replace(file)
    except OSError as error:
        raise UsageError(f'{file} cannot be written: {error.strerror}; --out takes a file to write.') from error


def predict(
    classifier: Classifier, sources: Sources, output: Output, terminal: TextIO, reporter: Reporter
) -> list[str]:
    """Classifies images and writes an answer for each, in their order.

    Args:
      classifier: the model.
      sources: the images.
      output: how the answers are written.
      terminal: standard output.
      reporter: shows the progress, which version answers, and what is unusual about the images.

    Returns:
      A sentence for each image that cannot be classified.

    Raises:
      UsageError: the file of `output` cannot be written, or it names more classes than there are.
      PipelineError: the model does not answer.
    """
    if sources.skipped:
        named = ', '.join(sources.skipped[:_NAMED])
        more = f' and {len(sources.skipped) - _NAMED:,} more' if len(sources.skipped) > _NAMED else ''
        reporter.note(f'passed over, because they are no images by their names: {named}{more}')
    watch = _Watch(classifier, reporter, output.top)
    batches, make_lines = _classify_in_order(classifier, sources.images), _make_formatter(output, sources.columns)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_open_file(output.file)) if output.file else terminal
        advance = stack.enter_context(track('predictions', len(sources.images)))
        try:
            for items in batches:
                items = _name_classes(classifier, items, output.top)
                text = make_lines(items)
                with reporter.step_aside():
                    stream.write(text)  # at once, so that Ctrl-C leaves no half line
                    stream.flush()
                for item in items:
                    watch.follow(item)
                advance(len(items))
        except BrokenPipeError:  # such as by `| head`: nobody reads the rest
            batches.close()
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    watch.note_sizes()
    return watch.failures
