"""The run on this machine: the sample if no data is given, every component, a closing summary, an exit code.

TFX, Beam and TensorFlow take half a minute to import and print a lot, so they are imported only after their output has
been sent to the log file.
"""

import contextlib
import datetime
import fcntl
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from components.data.manifest import check_splits
from components.errors import DataRefusedError, PipelineError, StorageError, UsageError, to_one_line
from pipeline.config import Layout, PipelineConfig
from pipeline.console import divert_chatter, print_line
from pipeline.storage import check_metadata_store, explain_fault

EXIT_PUSHED = 0
EXIT_NOT_BLESSED = 3
_NOTE_COLUMN = 28  # where a component's line begins to say what it did


@contextlib.contextmanager
def lock_root(root: Path) -> Iterator[None]:
    """Keeps a second run out of the same root as long as the first one runs.

    Raises:
      UsageError: a different process is running there.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / 'lock').open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UsageError(
                f'{root} is in use by process {file.read().strip()}; wait for it, or give another --root.'
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def run(config: PipelineConfig, *, verbose: bool) -> int:
    """Runs the pipeline in this process, and prints a line for each component.

    Args:
      config: what to run.
      verbose: shows the libraries' own output too.

    Returns:
      EXIT_PUSHED or EXIT_NOT_BLESSED.

    Raises:
      DataRefusedError: the data gate refused the data, or a file of the data cannot be read.
      StorageError: the disk is full, or the metadata store is locked or damaged.
      PipelineError: the run could not be finished. The message says why, and where the log is.
    """
    layout = Layout(config.root)
    if config.data:
        check_splits(config.data)
    log_file = layout.logs / f'{datetime.datetime.now():%Y%m%d-%H%M%S}.log'
    try:
        with lock_root(layout.root):
            check_metadata_store(layout)
            with divert_chatter(log_file, verbose=verbose) as terminal:
                return _run_and_log(config, layout, log_file, terminal)
    except (UsageError, DataRefusedError, StorageError):
        raise
    except Exception as error:
        fault = explain_fault(error, layout)
        raise fault or PipelineError(f'{to_one_line(error, limit=1000)} (log: {log_file})') from error


def _run_and_log(config: PipelineConfig, layout: Layout, log_file: Path, terminal: TextIO) -> int:
    try:
        return _run_components(config, layout, log_file, terminal)
    except Exception:
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        raise


def _run_components(config: PipelineConfig, layout: Layout, log_file: Path, terminal: TextIO) -> int:
    begin = time.monotonic()

    def say(name: str, seconds: float, note: str) -> None:
        print_line(f'{name:<17} {seconds:6.1f} s  {note}', terminal, hang=' ' * _NOTE_COLUMN)

    print_line(f'Pipeline {config.name} in {layout.root}', terminal)
    from pipeline import data, pipeline, runner, summaries

    say('(imports)', time.monotonic() - begin, 'TFX, Beam and TensorFlow loaded')
    if not config.data:
        before = time.monotonic()
        note = data.write_from_sample(config.sample, layout.sample, limit=None, beam=config.beam, replace=True)
        say('(sample data)', time.monotonic() - before, note)
    results: dict[str, runner.NodeResult] = {}

    def on_result(result: runner.NodeResult) -> None:
        results[result.node_id] = result
        note = summaries.summarize(result.node_id, result.outputs, config)
        if result.lost and not result.is_reused:
            note += f'; made again, because {", ".join(result.lost)} was gone'
        say(result.node_id, result.seconds, f'reused: {note}' if result.is_reused else note)

    # The versions that this run pushes keep its id, so that `versions` can name the log.
    runner.LocalRunner(on_result, log_file.stem).run(pipeline.create_pipeline(config))
    outputs = {node_id: result.outputs for node_id, result in results.items()}
    paths = summaries.list_paths(outputs)
    lines, is_pushed = summaries.make_closing_lines(outputs)
    reused = sum(result.is_reused for result in results.values())
    print_line(f'{len(results)} components, {reused} reused, {time.monotonic() - begin:.0f} s in all', terminal)
    for name, path in {**paths, 'log': log_file}.items():
        print_line(f'  {name:<10} {path}', terminal, hang=' ' * 13)
    for line in lines:
        print_line(line, terminal)
    return EXIT_PUSHED if is_pushed else EXIT_NOT_BLESSED
