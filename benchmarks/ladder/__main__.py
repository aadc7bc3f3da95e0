"""The ladder: recipes of transfer learning, measured on the same images from the least training to the most.

    python -m benchmarks.ladder --data DIR [--weights BACKBONE=FILE ...] [--rows PATTERN ...]

Every training's result is a file, so a ladder that was stopped goes on where it was, and the table shows what there is.
Trainings with the same frozen layers run in one process and share the frozen pass; each such group has a process of
its own. Without --data nothing is trained, and the table is printed from the results that are there.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.ladder import results
from benchmarks.ladder.forecast import forecast_seconds
from benchmarks.ladder.rows import ROWS, Job, Row, find_rows, group_jobs
from components.data.manifest import check_splits
from components.environment import choose_variables
from components.errors import PipelineError, UsageError
from trainer.backbones import BACKBONES

EXIT_INTERRUPTED = 128 + signal.SIGINT
_OUT = Path(__file__).with_name('measured')


def _parse_weights(text: str) -> tuple[str, str]:
    backbone, equals, file = text.partition('=')
    if not equals or backbone not in BACKBONES:
        raise argparse.ArgumentTypeError(
            f'must be BACKBONE=FILE with one of {", ".join(BACKBONES)}. Received: {text!r}'
        )
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f'names a file that does not exist. Received: {text!r}')
    return backbone, str(Path(file).absolute())


def build_parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.ladder', description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument('--data', type=Path, help='folder with TFRecords, as `python -m pipeline data` writes it')
    parser.add_argument(
        '--weights',
        type=_parse_weights,
        action='append',
        default=[],
        metavar='BACKBONE=FILE',
        help='file of ImageNet weights without top; without it Keras downloads them',
    )
    parser.add_argument(
        '--out', type=Path, default=_OUT, help='folder of the results (default: the one of the table in docs/ladder.md)'
    )
    parser.add_argument('--rows', nargs='+', default=[], metavar='PATTERN', help="rows to take, such as '*-160-*'")
    parser.add_argument('--seeds', type=harness.parse_count, help='trainings of each row (default: as --list shows)')
    parser.add_argument(
        '--limit',
        type=harness.parse_count,
        metavar='N',
        help='use only the first N images of each split, for a trial; give it an --out of its own',
    )
    parser.add_argument('--list', action='store_true', help='list the rows with their seeds and a forecast, and stop')
    parser.add_argument(
        '--docs', type=Path, metavar='FILE', help=f'write the table of all rows into FILE, after "{results.BEGIN}"'
    )
    return parser


def list_jobs(rows: list[Row], seeds: int | None, out: Path) -> list[Job]:
    """Lists the trainings of the rows that have no result yet."""
    jobs = [Job(row, seed) for row in rows for seed in range(seeds or row.seeds)]
    return [job for job in jobs if results.read_result(out, job) is None]


def print_rows(rows: list[Row], out: Path) -> None:
    """Prints each row with its number of seeds, how many were measured, and a forecast of the time."""
    print('Forecast for 2 cores with AVX2 and 9,000 images; rows with the same frozen layers share their pass.')
    for row in rows:
        done = len(results.read_row(out, row))
        pass_s, training_s = forecast_seconds(Job(row, 0).make_config({}).trainer)
        print(
            f'{row.name:42} {done} of {row.seeds} done, {pass_s / 60:4.0f} + {training_s / 60:3.0f} min  {row.recipe}'
        )


def run_group(jobs: list[Job], args: argparse.Namespace) -> bool:
    """Measures a group in a process of its own, and removes what it leaves behind; returns whether it succeeded."""
    names = list(dict.fromkeys(job.row.name for job in jobs))
    log = args.out / 'logs' / f'{names[0]}-seed{jobs[0].seed}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, '-m', 'benchmarks.ladder.training', '--data', args.data, '--out', args.out),
        *('--weights', json.dumps(dict(args.weights))),
        *(('--limit', str(args.limit)) if args.limit else ()),
        *(f'{job.row.name}:{job.seed}' for job in jobs),
    ]
    print(f'{", ".join(names)}: {len(jobs)} training{"s" * (len(jobs) > 1)}', flush=True)
    temporary = args.out / 'work' / 'tmp'
    temporary.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'TMPDIR': str(temporary.absolute())}
    with log.open('a') as file, subprocess.Popen(command, stderr=file, env=environment) as process:
        try:
            code = process.wait()
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
            shutil.rmtree(temporary)
    if code:
        print(f'  failed with exit code {code}; the reason is at the end of {log}', flush=True)
        return False
    return True


def run_jobs(jobs: list[Job], args: argparse.Namespace) -> bool:
    """Measures all jobs, group by group; returns whether all succeeded."""
    check_splits(str(args.data))
    print(f'{harness.describe_machine()}; results in {args.out}', flush=True)
    groups = group_jobs(jobs)
    succeeded = [run_group(group, args) for group in groups]
    if all(succeeded):
        shutil.rmtree(args.out / 'work', ignore_errors=True)
    return all(succeeded)


def main() -> int:
    """Runs the command line and returns the exit code."""
    args = build_parser().parse_args()
    rows = find_rows(args.rows)
    try:
        if not rows:
            raise UsageError(f'No row matches {" ".join(args.rows)}; `--list` shows the rows.')
        if args.list:
            print_rows(rows, args.out)
            return 0
        is_complete = run_jobs(list_jobs(rows, args.seeds, args.out), args) if args.data else True
        if args.docs:
            results.rewrite_document(args.docs, results.make_table(args.out, list(ROWS)))
        print(results.make_table(args.out, rows))
    except KeyboardInterrupt:
        print('Stopped. The same command goes on where it was.', file=sys.stderr)
        return EXIT_INTERRUPTED
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if is_complete else 1


if __name__ == '__main__':
    os.environ.update(choose_variables())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` and batch systems stop a ladder this way
    sys.exit(main())
