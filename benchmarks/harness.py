"""The harness of all benchmarks: it measures ours against a rival in one run, and prints the result as JSON.

A benchmark is run as `python -m benchmarks.NAME`; the last line of its output is one JSON object. The two sides take
turns, because other work on the machine changes their times from minute to minute, and only times of the same minutes
can be compared.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.environment import choose_variables

if TYPE_CHECKING:
    from components.data.cifar10 import BatchFile

Result = dict[str, Any]
"""What a benchmark measured, by name; it is printed as JSON."""

_CPU_INFO = Path('/proc/cpuinfo')
_MATRIX_FLAGS = {'AMX': 'amx_bf16', 'AVX512-BF16': 'avx512_bf16'}
_REAL_ARCHIVE = Path(__file__).parents[2] / 'shared' / 'cifar10' / 'cifar-10-binary-12k.tar.gz'
_TEST_SHARE = 1 / 6  # of the images, as in CIFAR-10 itself


def parse_count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1. Received: {count}')
    return count


def build_parser(description: str, *, images: int, rounds: int = 5) -> argparse.ArgumentParser:
    """Builds the command line that every benchmark has, with the defaults of its two options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--rounds', type=parse_count, default=rounds, help='number of rounds after the warm-up')
    parser.add_argument('--images', type=parse_count, default=images, help='number of images that each side works on')
    return parser


def describe_machine() -> str:
    """Describes in one line the CPU, whether it has bfloat16 units, and how many cores this process may use."""
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ''
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(':') for line in text.splitlines())}
    model = fields.get('model name') or platform.processor() or platform.machine()
    flags = fields.get('flags', '').split()
    units = ', '.join(f'{name} {"yes" if flag in flags else "no"}' for name, flag in _MATRIX_FLAGS.items())
    return f'{model}: {units}, {len(os.sched_getaffinity(0))} cores'


@contextlib.contextmanager
def divert_stdout() -> Iterator[None]:
    """Redirects standard output to standard error, so that only the benchmark's own lines are on standard output.

    Use it around code that imports TensorFlow or makes data; `run_benchmark` uses it around both sides. It redirects
    the file descriptor and not only `sys.stdout`, because most of the libraries' messages come from C++.
    """
    os.environ.update(choose_variables())
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _measure_seconds(work: Callable[[], object]) -> float:
    with divert_stdout():
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin


def run_benchmark(
    description: str,
    ours: Callable[[], object],
    rival: Callable[[], object],
    *,
    rounds: int = 5,
    ours_units: int = 1,
    **extra: Any,
) -> Result:
    """Measures both sides: first a warm-up of each, which does not count, then the rounds.

    In every round each side runs once; which one goes first alternates.

    Args:
      description: What is measured, for the terminal.
      ours, rival: Functions that do the work once; what they return is ignored.
      rounds: Number of rounds.
      ours_units: How many units of work `ours` does where the rival does one; its seconds are divided by this number.
      extra: More entries for the result.

    Returns:
      ours and rival (median seconds), ratio (rival / ours, more than 1 when ours is faster), rounds, and `extra`.
    """
    sides = {'ours': ours, 'rival': rival}
    print(description)
    for name, work in sides.items():
        print(f'  warm-up {name}: {_measure_seconds(work):.3f} s in all', flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            seconds[name].append(_measure_seconds(sides[name]) / (ours_units if name == 'ours' else 1))
        ours_s, rival_s = seconds['ours'][-1], seconds['rival'][-1]
        print(f'  round {number + 1}: ours {ours_s:.3f} s, rival {rival_s:.3f} s, {rival_s / ours_s:.2f}x', flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians['rival'] / medians['ours']
    print(f'  median: ours {medians["ours"]:.3f} s, rival {medians["rival"]:.3f} s, rival / ours = {ratio:.2f}')
    return {**medians, 'ratio': ratio, 'rounds': rounds, **extra}


def finish(result: Result) -> None:
    """Prints the result as one JSON object, which is the last line of the output."""
    print(json.dumps(result), flush=True)


def load_batches(folder: Path, count: int) -> tuple[str, list['BatchFile']]:
    """Writes `count` images as CIFAR-10's six batch files: real images if the archive is there, else the sample.

    Args:
      folder: where the batch files go; it exists and is empty.
      count: images in all batches together.

    Returns:
      A sentence that says which images they are, and the batch files, which contribute the same share of their images.

    Raises:
      DataError: The archive of real images has fewer.
    """
    from components.data import cifar10, sample
    from components.data.splits import limit_batches
    from components.errors import DataError

    if _REAL_ARCHIVE.is_file():
        batches = cifar10.extract_batches(_REAL_ARCHIVE, folder)
        total = sum(batch.records for batch in batches)
        if total < count:
            raise DataError(f'{_REAL_ARCHIVE.name} has only {total:,} images; {count:,} were asked for. Set --images.')
        return f'{count:,} real CIFAR-10 images ({_REAL_ARCHIVE.name})', limit_batches(batches, count)
    test = max(1, round(count * _TEST_SHARE))
    batches = sample.write_sample(folder, train=count - test, test=test, seed=0)
    return f'{count:,} synthetic images of the embedded sample (real CIFAR-10 images were not found)', batches


def write_records(out: Path, count: int) -> str:
    """Writes `count` images as TFRecords in train/, val/ and test/, as the pipeline does.

    Returns:
      A sentence that says which images they are.
    """
    from components.data.manifest import Source
    from components.data.tfrecords import write_dataset
    from pipeline.config import BeamConfig

    with tempfile.TemporaryDirectory() as folder:
        sentence, batches = load_batches(Path(folder), count)
        source = Source(kind='archive', name=sentence, sha256='')
        write_dataset(batches, out, source, limit=None, beam_args=BeamConfig().options)
    return sentence


@contextlib.contextmanager
def make_folder() -> Iterator[Path]:
    """Makes a temporary folder that is removed at the end, and makes libraries put their temporary files in it too.

    TFX, for example, copies itself to a temporary folder for every Beam component, and never removes the copy.
    """
    saved = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        temporary = Path(folder) / 'tmp'
        temporary.mkdir()
        tempfile.tempdir = str(temporary)
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = saved


def measure_bytes(folder: Path) -> int:
    """Returns the size of all files under a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
