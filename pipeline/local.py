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
from typing import TYPE_CHECKING

from components.data.manifest import check_splits
from components.errors import DataRefusedError, PipelineError, StorageError, UsageError, to_one_line
from pipeline.config import Layout, PipelineConfig
from pipeline.console import divert_chatter
from pipeline.events import ComponentFinished, ComponentStarted, Judged, Started, Summarized
from pipeline.imports import TFX_MODULES, track_imports
from pipeline.reporter import Reporter
from pipeline.storage import check_metadata_store, explain_fault

if TYPE_CHECKING:
    from pipeline import runner

EXIT_PUSHED = 0
EXIT_NOT_BLESSED = 3


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


def run(config: PipelineConfig, reporter: Reporter, *, verbose: bool) -> int:
    """Runs the pipeline in this process.

    Args:
      config: what to run.
      reporter: is told what goes on, and how the run ended if it was not by an error.
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
            with divert_chatter(log_file, verbose=verbose):
                return _run_and_log(config, layout, log_file, reporter)
    except (UsageError, DataRefusedError, StorageError):
        raise
    except Exception as error:
        fault = explain_fault(error, layout)
        raise fault or PipelineError(f'{to_one_line(error, limit=1000)} (log: {log_file})') from error


def _run_and_log(config: PipelineConfig, layout: Layout, log_file: Path, reporter: Reporter) -> int:
    try:
        return _run_components(config, layout, log_file, reporter)
    except Exception:
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        raise


@contextlib.contextmanager
def _report_component(reporter: Reporter, name: str) -> Iterator[list[str]]:
    """Reports what comes before the components as one of them; the note to show goes into the list."""
    begin, notes = time.monotonic(), list[str]()
    reporter.report(ComponentStarted(component=name))
    yield notes
    seconds = time.monotonic() - begin
    reporter.report(ComponentFinished(component=name, is_reused=False, seconds=seconds, note=' '.join(notes)))


def _run_components(config: PipelineConfig, layout: Layout, log_file: Path, reporter: Reporter) -> int:
    begin = time.monotonic()
    reporter.report(Started(command='run', pipeline=config.name, root=str(layout.root), log=str(log_file)))
    with _report_component(reporter, '(imports)') as notes, track_imports(TFX_MODULES):
        from pipeline import data, pipeline, runner, summaries

        notes.append('TFX, Beam and TensorFlow loaded')
    if not config.data:
        with _report_component(reporter, '(sample data)') as notes:
            notes.append(
                data.write_from_sample(config.sample, layout.sample, limit=None, beam=config.beam, replace=True)
            )
    results: dict[str, runner.NodeResult] = {}

    def on_start(node_id: str) -> None:
        reporter.report(ComponentStarted(component=node_id))

    def on_result(result: runner.NodeResult) -> None:
        results[result.node_id] = result
        note = summaries.summarize(result.node_id, result.outputs, config)
        if result.lost and not result.is_reused:
            note += f'; made again, because {", ".join(result.lost)} was gone'
        reporter.report(
            ComponentFinished(component=result.node_id, is_reused=result.is_reused, seconds=result.seconds, note=note)
        )

    # The versions that this run pushes keep its id, so that `versions` can name the log.
    runner.LocalRunner(on_result, log_file.stem, on_start).run(pipeline.create_pipeline(config))
    return _report_end(results, log_file, reporter, time.monotonic() - begin)


def _report_end(results: 'dict[str, runner.NodeResult]', log_file: Path, reporter: Reporter, seconds: float) -> int:
    """Reports what came of the run, and returns its exit code."""
    from pipeline import summaries

    outputs = {node_id: result.outputs for node_id, result in results.items()}
    paths = {name: str(path) for name, path in (*summaries.list_paths(outputs).items(), ('log', log_file))}
    reused = sum(result.is_reused for result in results.values())
    closing = summaries.make_closing(outputs)
    reporter.report(Summarized(components=len(results), reused=reused, seconds=seconds, paths=paths))
    reporter.report(Judged(is_pushed=closing.is_pushed, reasons=closing.reasons, lines=closing.broken))
    exit_code = EXIT_PUSHED if closing.is_pushed else EXIT_NOT_BLESSED
    reporter.finish(exit_code, closing.message)
    return exit_code
