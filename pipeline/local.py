"""The run on this machine: the sample if no data is given, every component, a closing summary, an exit code.

TFX, Beam and TensorFlow take half a minute to import and print a lot, so they are imported only after their output has
been sent to the log file.
"""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.manifest import check_splits, read_contract, read_manifest
from components.errors import DataRefusedError, PipelineError, StorageError, UsageError, to_one_line
from components.features import TRAIN_SPLIT
from components.places import locate
from pipeline.batch.shards import find_input
from pipeline.config import FEW_IMAGES, Layout, PipelineConfig, sample, small
from pipeline.console import divert_chatter
from pipeline.events import ComponentFailed, ComponentFinished, ComponentStarted, Judged, Started, Summarized
from pipeline.imports import TFX_MODULES, track_imports
from pipeline.next_steps import choose_after_failure, list_after_run, make_command
from pipeline.overrides import flatten_settings
from pipeline.peak_memory import read_peak_mb, reset_peak
from pipeline.reporter import Reporter
from pipeline.storage import check_metadata_store, explain_fault
from trainer.rendezvous import read_workers

if TYPE_CHECKING:
    from pipeline import runner

EXIT_PUSHED = 0
EXIT_NOT_BLESSED = 3


def _check_classes(config: PipelineConfig) -> None:
    """Checks that the gate names classes that the data has. Where the data does not say them, the Evaluator does it.

    Raises:
      UsageError: the data does not have such a class.
    """
    manifest = read_manifest(locate(config.data)) if config.data else {}  # that of the sample does not say them
    if config.class_names or manifest is not None:
        config.gate.list_recalls(config.class_names or read_contract(manifest or {}).class_names)


def _suggest_preset(config: PipelineConfig) -> str:
    """Says that there is a preset for few images if there are few and the run has another one; else ''."""
    manifest = read_manifest(locate(config.data)) if config.data else None
    count = manifest['counts'][TRAIN_SPLIT] if manifest else FEW_IMAGES
    if count >= FEW_IMAGES or config.name in (sample('').name, small('').name):
        return ''
    return f'{count:,} training images are few; --preset small is made for fewer than {FEW_IMAGES:,}'


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


def _check_one_machine(strategy: str) -> None:
    """Refuses a run that TF_CONFIG makes one of several workers.

    TensorFlow lets a process join others only before it does anything else, and a run does much before the Trainer.

    Raises:
      UsageError: it does.
      TrainingError: TF_CONFIG cannot be read.
    """
    if strategy not in ('auto', 'multi_worker'):
        return
    workers = read_workers(os.environ.get('TF_CONFIG', '')).count
    if workers > 1:
        raise UsageError(
            f'The environment variable TF_CONFIG lists {workers} workers, and a run of the whole pipeline cannot be '
            'one of them; unset it to train on this machine, or train on all of them with `python -m pipeline '
            'worker` (docs/training.md).'
        )


def run(config: PipelineConfig, reporter: Reporter, *, verbose: bool, command: str = '') -> int:
    """Runs the pipeline in this process.

    Args:
      config: what to run.
      reporter: is told what goes on, and how the run ended if it was not by an error.
      verbose: shows the libraries' own output too.
      command: the command line that asked for the run, to try again if it fails; '' for one without options.

    Returns:
      EXIT_PUSHED or EXIT_NOT_BLESSED.

    Raises:
      UsageError: the data folder lacks a split, or TF_CONFIG makes this run one of several workers.
      DataRefusedError: the data gate refused the data, or a file of the data cannot be read.
      StorageError: the disk is full, or the metadata store is locked or damaged.
      PipelineError: the run could not be finished. The message says why, and where the log is.
    """
    layout = Layout(config.root)
    _check_one_machine(config.trainer.strategy)
    if config.data:
        check_splits(config.data)
    _check_classes(config)
    if config.bulk_input:
        find_input(config.bulk_input)  # now, and not after the training
    log_file = layout.logs / f'{datetime.datetime.now():%Y%m%d-%H%M%S}.log'
    try:
        with lock_root(layout.root):
            check_metadata_store(layout)
            with divert_chatter(log_file, verbose=verbose):
                return _run_and_log(_Run(config, reporter, log_file), command or make_command('run'))
    except (UsageError, DataRefusedError, StorageError):
        raise
    except Exception as error:
        fault = explain_fault(error, layout)
        raise fault or PipelineError(f'{to_one_line(error, limit=1000)} (log: {log_file})') from error


@contextlib.contextmanager
def _report_component(reporter: Reporter, name: str) -> Iterator[list[str]]:
    """Reports what comes before the components as one of them; the note to show goes into the list."""
    begin, notes = time.monotonic(), list[str]()
    reporter.report(ComponentStarted(component=name))
    yield notes
    seconds = time.monotonic() - begin
    reporter.report(ComponentFinished(component=name, is_reused=False, seconds=seconds, note=' '.join(notes)))


class _Run:
    """A run that is going on."""

    def __init__(self, config: PipelineConfig, reporter: Reporter, log_file: Path):
        self.config, self.reporter, self.log_file = config, reporter, log_file
        self.layout, self.run_id = Layout(config.root), log_file.stem
        self.results: dict[str, runner.NodeResult] = {}
        self.memory_mb: dict[str, float] = {}
        self.component: str | None = None  # that began last
        self.begin = self.component_begin = time.monotonic()

    def start_component(self, node_id: str) -> None:
        """Is called before a component runs or is reused."""
        self.component, self.component_begin = node_id, time.monotonic()
        reset_peak()
        self.reporter.report(ComponentStarted(component=node_id))

    def finish_component(self, result: 'runner.NodeResult') -> None:
        """Is called after every component."""
        from pipeline import summaries

        peak = read_peak_mb()
        if peak is not None and not result.is_reused:
            self.memory_mb[result.node_id] = peak
        self.record()  # so that a run that is killed, and the report, know settings and memory
        self.results[result.node_id] = result
        note = summaries.summarize(result.node_id, result.outputs, self.config)
        if result.lost and not result.is_reused:
            note += f'; made again, because {", ".join(result.lost)} was gone'
        self.reporter.report(
            ComponentFinished(component=result.node_id, is_reused=result.is_reused, seconds=result.seconds, note=note)
        )

    def record(self, exit_code: int | None = None, message: str = '', **figures: Any) -> None:
        """Keeps the settings in ML Metadata, and how the run ended if it has.

        Args:
          exit_code: the exit code; None while the run is going on.
          message: what came of it, in a sentence.
          figures: 'reasons' and 'training' of `pipeline.run_record.RunRecord`.
        """
        from pipeline.pipeline import list_kept_settings
        from pipeline.run_record import RunRecord, open_store, write_record

        settings = flatten_settings(list_kept_settings(self.config))
        record = RunRecord(
            settings=settings | {'data': self.config.data or str(self.layout.sample)},
            exit_code=exit_code,
            message=message,
            component=self.component if exit_code not in (None, EXIT_PUSHED, EXIT_NOT_BLESSED) else None,
            seconds=None if exit_code is None else time.monotonic() - self.begin,
            memory_mb=self.memory_mb,
            **figures,
        )
        write_record(open_store(self.layout.metadata), self.run_id, record)

    def report_failure(self, error: Exception, command: str) -> None:
        """Reports the component that failed, and keeps the failure in ML Metadata, unless storage itself failed."""
        if not self.component or self.component in self.results:
            return
        inputs: tuple[str, ...] = ()
        report: str | None = None
        if not explain_fault(error, self.layout):
            from pipeline.run_history import list_inputs

            with contextlib.suppress(Exception):  # the error itself is what matters
                self.record(getattr(error, 'exit_code', 1), to_one_line(error))
                inputs = list_inputs(self.layout, self.run_id, self.component)
            report = self._write_report()
        # The runner gives any error that is not ours these words.
        is_expected = isinstance(error, PipelineError) and not str(error).startswith(f'{self.component} failed: ')
        self.reporter.report(
            ComponentFailed(
                component=self.component,
                seconds=time.monotonic() - self.component_begin,
                inputs=inputs,
                log=str(self.log_file),
                report=report,
                command=choose_after_failure(command, is_expected=is_expected),
            )
        )

    def _write_report(self) -> str | None:
        """Writes the report of a run that failed before the component Report; None if it cannot be made."""
        from pipeline.report.report import write_report

        try:
            return str(write_report(self.layout.root, self.run_id, None)[0])
        except Exception:  # the error of the run is what matters
            logging.exception('The report could not be made.')
            return None


def _run_and_log(run: _Run, command: str) -> int:
    try:
        return _run_components(run)
    except Exception as error:
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        run.report_failure(error, command)
        raise


def _run_components(run: _Run) -> int:
    config, layout, reporter = run.config, run.layout, run.reporter
    reporter.report(Started(command='run', pipeline=config.name, root=str(layout.root), log=str(run.log_file)))
    suggestion = _suggest_preset(config)
    if suggestion:
        reporter.note(suggestion)
    with _report_component(reporter, '(imports)') as notes, track_imports(TFX_MODULES):
        from pipeline import data, pipeline, runner, summaries  # noqa: F401  (summaries is imported here to be tracked)

        notes.append('TFX, Beam and TensorFlow loaded')
    if not config.data:
        with _report_component(reporter, '(sample data)') as notes:
            notes.append(
                data.write_from_sample(config.sample, layout.sample, limit=None, beam=config.beam, replace=True)
            )
    # The versions that this run pushes keep its id, so that `versions` can name the log.
    runner.LocalRunner(run.finish_component, run.run_id, run.start_component).run(pipeline.create_pipeline(config))
    return _report_end(run)


def _report_end(run: _Run) -> int:
    """Reports what came of the run, keeps it in ML Metadata, and returns the exit code."""
    from pipeline import summaries
    from pipeline.run_history import TRAINING_FILE

    outputs = {node_id: result.outputs for node_id, result in run.results.items()}
    paths = {name: str(path) for name, path in (*summaries.list_paths(outputs).items(), ('log', run.log_file))}
    reused = sum(result.is_reused for result in run.results.values())
    closing = summaries.make_closing(outputs)
    exit_code = EXIT_PUSHED if closing.is_pushed else EXIT_NOT_BLESSED
    training = json.loads((Path(paths['training']) / TRAINING_FILE).read_text())
    run.record(exit_code, closing.message, reasons=closing.reasons, training=training)
    seconds = time.monotonic() - run.begin
    run.reporter.report(Summarized(components=len(run.results), reused=reused, seconds=seconds, paths=paths))
    next_steps = list_after_run(paths, run.config.get_serving(), str(run.layout.root), is_pushed=closing.is_pushed)
    run.reporter.report(
        Judged(is_pushed=closing.is_pushed, reasons=closing.reasons, lines=closing.broken, next_steps=next_steps)
    )
    run.reporter.finish(exit_code, closing.message)
    return exit_code
