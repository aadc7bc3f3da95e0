"""What every benchmark shares: ours against a rival, interleaved, in one run, with one JSON object as the last line.

A benchmark is run as `python -m benchmarks.NAME`. The two sides take turns, because on a machine with other work
only their ratio in the same minutes means something.
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

_CPU_INFO = Path('/proc/cpuinfo')
_MATRIX_FLAGS = {'AMX': 'amx_bf16', 'AVX512-BF16': 'avx512_bf16'}
_REAL_ARCHIVE = Path(__file__).parents[2] / 'shared' / 'cifar10' / 'cifar-10-binary-12k.tar.gz'
_TEST_SHARE = 1 / 6  # of the embedded sample, as of CIFAR-10 itself


def _parse_count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f'{count} is not at least 1')
    return count


def build_parser(description: str, *, images: int, rounds: int = 5) -> argparse.ArgumentParser:
    """The command line every benchmark has; both numbers are the defaults and must be at least 1."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--rounds', type=_parse_count, default=rounds, help='measured rounds, after one warm-up')
    parser.add_argument('--images', type=_parse_count, default=images, help='images that each side works on')
    return parser


def describe_machine() -> str:
    """The CPU, whether it has bfloat16 units, and the cores this process may use, in one line."""
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ''
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(':') for line in text.splitlines())}
    model = fields.get('model name') or platform.processor() or platform.machine()
    flags = fields.get('flags', '').split()
    units = ', '.join(f'{name} {"yes" if flag in flags else "no"}' for name, flag in _MATRIX_FLAGS.items())
    return f'{model}: {units}, {len(os.sched_getaffinity(0))} cores'


@contextlib.contextmanager
def divert_stdout() -> Iterator[None]:
    """Sends what libraries write to standard output to standard error, so that the JSON stays the last line.

    Wrap what imports TensorFlow or makes data; `run_benchmark` does it for the two sides. File descriptors
    rather than `sys.stdout`, because much of the chatter is C++'s.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
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
    **extra,
) -> dict:
    """Measures both sides: a warm-up of each that does not count, then rounds in which they take turns at going first.

    Args:
      description: what is measured, for the terminal.
      ours, rival: do the work once; what they return is ignored.
      rounds: how often each is measured.
      ours_units: how many units of work ours does where the rival does one; its seconds are divided by that.
      extra: goes into the result.

    Returns:
      ours and rival (medians, seconds), ratio (rival / ours, over 1 when ours is faster), rounds, and `extra`.
    """
    sides = {'ours': ours, 'rival': rival}
    print(description)
    for name, work in sides.items():
        print(f'  warm-up {name}: {_measure_seconds(work):.3f} s in all', flush=True)
    seconds = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            seconds[name].append(_measure_seconds(sides[name]) / (ours_units if name == 'ours' else 1))
        ours_s, rival_s = seconds['ours'][-1], seconds['rival'][-1]
        print(f'  round {number + 1}: ours {ours_s:.3f} s, rival {rival_s:.3f} s, {rival_s / ours_s:.2f}x', flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians['rival'] / medians['ours']
    print(f'  median: ours {medians["ours"]:.3f} s, rival {medians["rival"]:.3f} s, rival / ours = {ratio:.2f}')
    return {**medians, 'ratio': ratio, 'rounds': rounds, **extra}


def finish(result: dict) -> None:
    """Prints the result as one JSON object, the last line of the output."""
    print(json.dumps(result), flush=True)


def load_batches(folder: Path, count: int) -> tuple[str, list]:
    """Writes `count` images as CIFAR-10's six batch files: real ones where they are at hand, else the embedded sample.

    Args:
      folder: where the batch files go; it exists and is empty.
      count: images in all batches together.

    Returns:
      A sentence that says which images, and a list of `components.data.cifar10.BatchFile`; all have the same share.

    Raises:
      DataError: the real archive holds fewer.
    """
    from components.data import cifar10, sample
    from components.data.splits import limit_batches
    from components.errors import DataError

    if _REAL_ARCHIVE.is_file():
        batches = cifar10.extract_batches(_REAL_ARCHIVE, folder)
        total = sum(batch.records for batch in batches)
        if total < count:
            raise DataError(f'{_REAL_ARCHIVE.name} holds {total:,} images; {count:,} were asked for.')
        return f'{count:,} real CIFAR-10 images ({_REAL_ARCHIVE.name})', limit_batches(batches, count)
    test = max(1, round(count * _TEST_SHARE))
    return f'{count:,} images of the embedded sample, drawn (no real CIFAR-10 beside the project)', (
        sample.write_sample(folder, train=count - test, test=test, seed=0)
    )


def write_records(out: Path, count: int) -> str:
    """Writes `count` images as the pipeline does, as TFRecords in train/, val/ and test/.

    Returns:
      A sentence that says which images they are.
    """
    from components.data.manifest import Source
    from components.data.tfrecords import write_dataset
    from pipeline.config import BeamConfig

    with tempfile.TemporaryDirectory() as folder:
        sentence, batches = load_batches(Path(folder), count)
        source = Source(kind='archive', name=sentence, sha256='')
        write_dataset(batches, out, source, limit=None, beam_args=BeamConfig().args)
    return sentence


@contextlib.contextmanager
def make_folder() -> Iterator[Path]:
    """A folder that is removed at the end, with all that libraries leave in what they take for the system's.

    TFX copies itself to a temporary folder for every Beam component and never removes it.
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
    """Bytes of all files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
