"""The request sample: a bounded, seeded sample of the images that the server was asked about, with its answers.

A line of JSON says of an image when it came, which version answered what, and what the image looks like. The image
itself is kept only if that is asked for. The sample is a folder, which `python -m pipeline drift` reads:

  YYYY-MM-DD.jsonl: the sample of a day (UTC), at most SAMPLE_SIZE lines, each an AskedImage.
  YYYY-MM-DD/: the images of those lines, if they are kept.
  counts.json: how many images each version answered, and how many are not in the sample for want of time, by day.

Each day is sampled by itself, by Algorithm R (Vitter 1985, "Random Sampling with a Reservoir"), so that a day of drift
does not drown in a year of requests. The newest KEPT_DAYS days are kept.
"""

import contextlib
import copy
import dataclasses
import datetime
import fcntl
import io
import itertools
import json
import logging
import math
import queue
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from PIL import Image

from components import features
from components.errors import UsageError, to_one_line
from components.image_statistics import PROPERTIES, EncodedOrPixels, measure_images
from components.staging import write_bytes, write_text

if TYPE_CHECKING:
    from pipeline.server.service import Answer, Asked

SAMPLE_SIZE = 5_000  # images a day
KEPT_DAYS = 7
COUNTS_FILE = 'counts.json'
_WRITE_INTERVAL_S = 5.0  # a killed server loses at most what came since
_MAX_WAITING_BYTES = 32 * 2**20  # of images that wait to be measured
_BATCH = 64
_EXAMPLES_KEY = 'examples'  # the input of features.SIGNATURE_EXAMPLES
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedImage:
    """An image that a server was asked about, and the answer.

    time: when it was answered, ISO 8601 in UTC.
    version: the version that answered; None if a log does not tell.
    signature: the one that was asked.
    statistics: by `components.image_statistics.PROPERTIES`; None for what could not be measured.
    label: the class label; -1 for an image that could not be decoded (`serving_default_safe`).
    probabilities: of all classes; empty if the client did not ask for them, or if they are not numbers.
    image: where the image is kept, relative to the sample's folder; '' if it is not.
    """

    time: str
    version: int | None
    signature: str
    statistics: dict[str, float | None]
    label: int
    probabilities: tuple[float, ...]
    image: str = ''

    def to_line(self) -> str:
        """Returns it as a line of JSON, with the statistics beside the other fields."""
        fields = dataclasses.asdict(self)
        statistics = fields.pop('statistics')
        if not self.image:
            del fields['image']
        return json.dumps({**fields, **statistics}) + '\n'


def parse_line(line: str) -> AskedImage:
    """Reads what `AskedImage.to_line` wrote.

    Raises:
      ValueError: the line is damaged.
    """
    try:
        fields = json.loads(line)
        values = {name: fields[name] for name in PROPERTIES}
        return AskedImage(
            time=str(fields['time']),
            version=int(fields['version']),
            signature=str(fields['signature']),
            statistics={name: None if value is None else float(value) for name, value in values.items()},
            label=int(fields['label']),
            probabilities=tuple(map(float, fields['probabilities'])),
            image=str(fields.get('image', '')),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error


class Row(NamedTuple):
    """An image of a request, as it was sent, and the answer to it."""

    image: EncodedOrPixels
    """Encoded bytes, pixels, or a serialized tf.Example."""
    is_example: bool
    label: int
    probabilities: tuple[float, ...]

    @property
    def size(self) -> int:
        """Bytes that the image takes."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


def list_rows(inputs: dict[str, Any], outputs: dict[str, Any]) -> list[Row]:
    """Returns the images of a request with their answers.

    Args:
      inputs, outputs: NumPy arrays by name, the first axis of which counts the images.

    Returns:
      The rows; none where the signature does not classify, and none for `explain`, which is asked about images that
      were classified before.
    """
    if set(inputs) not in ({features.IMAGE_KEY}, {_EXAMPLES_KEY}):
        return []
    ((key, images),) = inputs.items()
    labels, probabilities = (outputs.get(name) for name in (features.OUTPUT_LABEL, features.OUTPUT_PROBABILITIES))
    if labels is None and probabilities is not None:
        labels = np.argmax(probabilities, axis=-1)
    if labels is None or np.ndim(labels) != 1 or len(labels) != len(images):
        return []
    chances = [()] * len(images)
    if probabilities is not None:
        chances = np.asarray(probabilities, np.float64).round(4).tolist()  # float32 cannot hold four decimals
    return [
        Row(image, key == _EXAMPLES_KEY, int(label), tuple(chance) if math.isfinite(sum(chance)) else ())
        for image, label, chance in zip(images, labels, chances, strict=True)
    ]


def describe_rows(
    rows: Sequence[tuple[Row, str, int | None, str]], image_size: int
) -> list[tuple[AskedImage, EncodedOrPixels]]:
    """Measures images.

    Args:
      rows: each with the time, the version and the signature.
      image_size: of the version's contract.

    Returns:
      What is kept of each, and the image.
    """
    images = [_read_example(bytes(row.image)) if row.is_example else row.image for row, *_ in rows]
    described = []
    measures = measure_images(images, image_size)
    for (row, moment, version, signature), image, measured in zip(rows, images, measures, strict=True):
        statistics = {
            name: round(value, 2) if math.isfinite(value) else None
            for name, value in zip(PROPERTIES, measured.tolist(), strict=True)
        }
        asked = AskedImage(
            time=moment,
            version=version,
            signature=signature,
            statistics=statistics,
            label=row.label,
            probabilities=row.probabilities,
        )
        described.append((asked, image))
    return described


def _read_example(serialized: bytes) -> bytes:
    """Returns the image in a serialized tf.Example; b'' if it has none."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.example.example_pb2 import Example

    try:
        values = Example.FromString(serialized).features.feature[features.IMAGE_KEY].bytes_list.value
    except DecodeError:
        return b''
    return bytes(values[0]) if values else b''


def choose_slot(seed: int, day: str, index: int, size: int = SAMPLE_SIZE) -> int | None:
    """Says where the image with this index goes in the sample of a day, or None: it does not go into it (Algorithm R).

    The answer depends on the arguments alone, so a server that is started again goes on as if it had never stopped.
    """
    slot = index if index < size else random.Random(f'{seed} {day} {index}').randrange(index + 1)
    return slot if slot < size else None


class _Chosen(NamedTuple):
    """An image that goes into the sample and waits to be measured."""

    day: str
    slot: int
    row: Row
    time: str
    version: int
    signature: str
    image_size: int


class _Kept(NamedTuple):
    """What a slot holds."""

    line: str
    image: str  # as AskedImage.image


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _lock_folder(folder: Path) -> TextIO:
    """Keeps other servers from writing into the folder until the file is closed, or this process has ended.

    Raises:
      UsageError: a different server writes there.
    """
    file = (folder / '.lock').open('a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UsageError(f'{folder} is written by a different server; give each its own --requests.') from error
    return file


def _read_counts(file: Path) -> dict[str, dict[str, Any]]:
    """Reads COUNTS_FILE.

    Raises:
      UsageError: the file is damaged.
    """
    try:
        counts = json.loads(file.read_text()) if file.exists() else {}
        return {
            str(day): {'images': dict(count['images']), 'left_out': int(count['left_out'])}
            for day, count in counts.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f'{file} is damaged ({to_one_line(error)}); remove it, or give a different folder.') from error


class RequestSample:
    """Writes the request sample. A thread of its own measures and writes; no request waits for it.

    Args:
      folder: of the sample; it may hold one already, which is gone on with.
      keeps_images: whether the images of the sample are kept too.
      seed: decides which images go into the sample.
      size: how many images of a day go into it.
      now: tells the time.

    Raises:
      UsageError: the folder cannot be used, or a different server writes there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keeps_images: bool = False,
        seed: int = 0,
        size: int = SAMPLE_SIZE,
        now: Callable[[], datetime.datetime] = _now,
    ):
        self._folder, self._keeps_images, self._seed, self._size, self._now = folder, keeps_images, seed, size, now
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._own = _lock_folder(folder)
        except OSError as error:
            raise UsageError(f'--requests {folder} cannot be written: {to_one_line(error)}.') from error
        for leftover in folder.glob('.*.partial-*'):  # of a server that was killed
            leftover.unlink()
        self._lock = threading.Lock()  # of everything that `offer` changes
        try:
            self._counts = _read_counts(folder / COUNTS_FILE)
        except UsageError:
            self._own.close()
            raise
        self._day = max([now().date().isoformat(), *self._counts])
        self._waiting_bytes = 0
        self._queue: queue.SimpleQueue[_Chosen | None] = queue.SimpleQueue()
        # Only the thread uses these once it runs.
        self._written_day, self._kept = self._day, self._read_day(self._day)
        self._written_counts, self._is_changed, self._has_failed = copy.deepcopy(self._counts), False, False
        self._seen = max(sum(self._count_day(self._day)['images'].values()), len(self._kept))
        self._thread = threading.Thread(target=self._work, name='request-sample', daemon=True)
        self._thread.start()

    def offer(self, asked: 'Asked', answer: 'Answer') -> None:
        """Chooses from the images of an answered request. Neither blocks nor raises; an observer of the service.

        An image that cannot be taken because too many wait is counted as left out.
        """
        rows = list_rows(asked.inputs, answer.outputs)
        if not rows:
            return
        now = self._now()
        with self._lock:
            day = now.date().isoformat()
            if day > self._day:  # a clock that was put back does not begin an old day again
                self._day, self._seen = day, 0
            count = self._count_day(self._day)
            version = str(answer.version)
            count['images'][version] = count['images'].get(version, 0) + len(rows)
            for row in rows:
                slot = choose_slot(self._seed, self._day, self._seen, self._size)
                self._seen += 1
                if slot is None:
                    continue
                if self._waiting_bytes + row.size > _MAX_WAITING_BYTES:
                    count['left_out'] += 1
                    continue
                self._waiting_bytes += row.size
                if not isinstance(row.image, bytes):
                    row = row._replace(image=row.image.copy())  # else the whole request would be kept
                moment = now.isoformat(timespec='seconds')
                self._queue.put(
                    _Chosen(self._day, slot, row, moment, answer.version, answer.signature, answer.image_size)
                )

    def close(self) -> None:
        """Writes what was offered so far, and ends."""
        self._queue.put(None)
        self._thread.join()
        self._own.close()

    def _count_day(self, day: str) -> dict[str, Any]:
        return self._counts.setdefault(day, {'images': {}, 'left_out': 0})

    def _read_day(self, day: str) -> dict[int, _Kept]:
        """Reads the sample of a day that an earlier server began, and removes images that no line names."""
        kept: dict[int, _Kept] = {}
        file = self._folder / f'{day}.jsonl'
        for line in file.read_text().splitlines() if file.exists() else ():
            try:
                kept[len(kept)] = _Kept(f'{line}\n', parse_line(line).image)
            except ValueError as error:
                _log.warning('%s: a damaged line was left out (%s).', file, error)
        named = {each.image for each in kept.values()}
        for image in (self._folder / day).glob('*'):
            if f'{day}/{image.name}' not in named:
                image.unlink()
        return kept

    def _work(self) -> None:
        """The thread: measures and writes until it is told to end."""
        is_open = True
        self._remove_old_days()
        while is_open:
            until = time.monotonic() + _WRITE_INTERVAL_S
            while is_open and time.monotonic() < until:
                is_open = self._take(until)
            self._write()

    def _take(self, until: float) -> bool:
        """Takes what waits, at most _BATCH images; returns False when there is nothing more to come."""
        chosen: list[_Chosen] = []
        with contextlib.suppress(queue.Empty):
            while len(chosen) < _BATCH:
                timeout = 0 if chosen else max(0, until - time.monotonic())
                each = self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
                if each is None:
                    self._keep(chosen)
                    return False
                chosen.append(each)
        self._keep(chosen)
        return True

    def _keep(self, chosen: list[_Chosen]) -> None:
        """Measures images and puts them into the sample."""
        described: list[tuple[AskedImage, EncodedOrPixels]] = []
        for image_size, group in itertools.groupby(chosen, key=lambda each: each.image_size):
            rows = [(each.row, each.time, each.version, each.signature) for each in group]
            described += describe_rows(rows, image_size)
        for (day, slot, *_), (asked, image) in zip(chosen, described, strict=True):
            if day != self._written_day:
                self._write()
                self._written_day, self._kept = day, {}
                self._remove_old_days()
            before = self._kept.get(slot)
            if before and before.image:
                (self._folder / before.image).unlink(missing_ok=True)
            name = self._write_image(f'{day}/{slot:05}', image) if self._keeps_images else ''
            self._kept[slot] = _Kept(dataclasses.replace(asked, image=name).to_line(), name)
            self._is_changed = True
        with self._lock:
            self._waiting_bytes -= sum(each.row.size for each in chosen)

    def _write_image(self, name: str, image: EncodedOrPixels) -> str:
        """Writes an image and returns its path in the folder; '' if it cannot be written."""
        if isinstance(image, bytes):
            content = image
            try:
                suffix = (Image.open(io.BytesIO(image)).format or 'bin').lower()
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                suffix = 'bin'
        else:
            out, suffix = io.BytesIO(), 'png'
            Image.fromarray(image).save(out, 'PNG')
            content = out.getvalue()
        file = self._folder / f'{name}.{suffix}'
        try:
            file.parent.mkdir(exist_ok=True)
            write_bytes(file, content)
        except OSError as error:
            self._warn(error)
            return ''
        return f'{name}.{suffix}'

    def _write(self) -> None:
        """Writes counts and sample if they have changed; what cannot be written is tried again the next time.

        The counts come first: a server that is killed in between goes on with a sample that is a little too old.
        """
        with self._lock:
            counts = copy.deepcopy(self._counts)
        try:
            if counts != self._written_counts:
                write_text(self._folder / COUNTS_FILE, json.dumps(counts, indent=2))
                self._written_counts = counts
            if self._is_changed:
                lines = (self._kept[slot].line for slot in sorted(self._kept))
                write_text(self._folder / f'{self._written_day}.jsonl', ''.join(lines))
                self._is_changed = False
            self._has_failed = False
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        """Says once that the sample cannot be written, until it can be again."""
        if not self._has_failed:
            _log.warning('The request sample cannot be written: %s. It is tried again.', to_one_line(error))
        self._has_failed = True

    def _remove_old_days(self) -> None:
        days = {file.stem for file in self._folder.glob('*.jsonl')} | {self._written_day}
        old = sorted(days)[:-KEPT_DAYS]
        with self._lock:
            for day in old:
                self._counts.pop(day, None)
        for day in old:
            (self._folder / f'{day}.jsonl').unlink(missing_ok=True)
            shutil.rmtree(self._folder / day, ignore_errors=True)
