"""Which Beam steps run on which engine: every step of a small run on each engine, and the table of docs/scale.md.

    python -m benchmarks.engines

Each step is the step of a run in this process, on the same inputs. What cannot be had on this machine is left out with
the reason. The last line is one JSON object with the seconds, or what the step said when it was refused.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.beam_cluster import Unavailable, start_cluster
from benchmarks.harness import Result, describe_machine, divert_stdout, finish
from components.errors import PipelineError, UsageError
from pipeline.config import PRESETS, BeamConfig, Layout, SampleConfig
from pipeline.engines import explain_worker_failure

STEPS = ('ImportExampleGen', 'StatisticsGen', 'DataCheck', 'Evaluator')
"""The components that run on Beam, beside the `data` command."""
DATAFLOW = (
    '--runner=DataflowRunner',
    '--dry_run=True',
    '--project=project',
    '--region=europe-west1',
    '--temp_location=gs://bucket/temp',
    '--sdk_container_image=registry.example.com/cifar10:0.1.0-worker',
)
_WORKERS = ('--runner=FnApiRunner', '--direct_running_mode=multi_processing', '--direct_num_workers=2')

Work = Callable[[], object]


def write_data(beam: BeamConfig, out: Path, sample: SampleConfig = SampleConfig()) -> None:  # noqa: B008  (frozen)
    """Writes the embedded sample, as the `data` command does."""
    from pipeline.data import write_from_sample

    write_from_sample(sample, out, limit=None, beam=beam)


def run_step(root: Path, name: str, beam: BeamConfig, out: Path) -> dict[str, Path]:
    """Runs one component of a finished run again, on an engine, with what it read then.

    Args:
      root: of the run, whose newest one is taken; it has the settings of the sample.
      name: one of STEPS.
      beam: the engine.
      out: folder to make.

    Returns:
      The folders of its outputs by key.
    """
    from tfx.types import artifact_utils

    from pipeline.pipeline import create_pipeline
    from pipeline.run_history import read_runs

    steps = {step.component: step.outputs for step in read_runs(Layout(str(root)))[-1].steps}
    components = {each.id: each for each in create_pipeline(PRESETS['sample'](str(root))).components}
    component = components[name]
    inputs = {}
    for key, channel in component.inputs.items():
        artifact = channel.type()
        artifact.set_mlmd_artifact(steps[channel.producer_component_id][channel.output_key])
        inputs[key] = [artifact]
    outputs = {key: channel.type() for key, channel in component.outputs.items()}
    for key, artifact in outputs.items():
        artifact.uri = str(out / key)
        (out / key).mkdir(parents=True)
    executor = component.executor_spec.executor_class
    context = executor.Context(beam_pipeline_args=beam.options, tmp_dir=str(out / 'tmp'), unique_id='1')
    executor(context).Do(
        inputs, {key: [artifact] for key, artifact in outputs.items()}, dict(component.exec_properties)
    )
    return {key: Path(artifact_utils.get_single_uri([artifact])) for key, artifact in outputs.items()}


def list_work(root: Path, beam: BeamConfig, out: Path) -> dict[str, Work]:
    """Returns the `data` command and every step, ready to run on an engine; see `run_step`."""
    work: dict[str, Work] = {'data': lambda: write_data(beam, out / 'data')}
    for name in STEPS:
        work[name] = lambda name=name: run_step(root, name, beam, out / name)
    return work


def translate(work: Work) -> int:
    """Runs a step on Dataflow as far as `--dry_run` goes; returns how many transforms Dataflow would be given."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    translated: list[Any] = []
    run_pipeline = DataflowRunner.run_pipeline

    def keep(runner: Any, *args: Any, **kwargs: Any) -> Any:
        result = run_pipeline(runner, *args, **kwargs)
        translated.append(runner.job.proto_pipeline)
        return result

    # What comes after the job does not find its results.
    with mock.patch.object(DataflowRunner, 'run_pipeline', keep):
        try:
            work()
        except Exception:
            if not translated:
                raise
    return len(translated[0].components.transforms)


def measure(work: dict[str, Work], args: Sequence[str]) -> dict[str, str]:
    """Runs each of the works once; returns its seconds, or the sentence with which it was refused."""
    cells = {}
    for name, run in work.items():
        begin = time.perf_counter()
        try:
            with divert_stdout():
                run()
            cells[name] = f'ok, {time.perf_counter() - begin:.0f} s'
        except Exception as error:  # noqa: BLE001  (what a step fails with is a result here)
            explained = error if isinstance(error, PipelineError) else explain_worker_failure(error, args)
            cells[name] = f'refused: {explained}' if explained else f'fails: {" ".join(str(error).split())[:300]}'
        print(f'  {name}: {cells[name]}', flush=True)
    return cells


def measure_run(root: Path, args: Sequence[str]) -> str:
    """Measures a whole run at 64 pixels, in a process of its own; returns its seconds, or its last line."""
    begin = time.perf_counter()
    command = [sys.executable, '-m', 'pipeline', 'run', '--root', str(root), '--set', 'trainer.image_size=64']
    answer = subprocess.run(
        [*command, '--set', f'beam.args={",".join(args)}'], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    return (
        f'ok, {seconds:.0f} s' if answer.returncode in (0, 3) else f'refused: {answer.stderr.strip().splitlines()[-1]}'
    )


@contextlib.contextmanager
def _start(folder: Path, engine: str) -> Iterator[Sequence[str]]:
    clusters = {
        'Prism, stock worker pool': {'isolated': False, 'booted': False},
        "Prism, Beam's `boot` on the workers": {'isolated': False},
        'the same, in namespaces of their own with one shared folder': {'isolated': True},
    }
    here = {
        'in this process': BeamConfig().args,
        'multi_processing': _WORKERS,
        'Dask': ('--runner=DaskRunner',),
        'Dataflow, `--dry_run`': DATAFLOW,
    }
    if engine in clusters:
        with start_cluster(folder, **clusters[engine]) as cluster:
            yield cluster.args
    else:
        yield here[engine]


ENGINES = (
    'in this process',
    'multi_processing',
    'Prism, stock worker pool',
    "Prism, Beam's `boot` on the workers",
    'the same, in namespaces of their own with one shared folder',
    'Dask',
    'Dataflow, `--dry_run`',
)


def measure_engine(engine: str, root: Path | None, shared: Path, *, whole: bool) -> dict[str, str]:
    """Returns a row of the table: what came of the steps of the run in `root`, and of a whole run if `whole`."""
    folder = shared / str(ENGINES.index(engine))
    folder.mkdir()
    cells: dict[str, str] = {}
    try:
        with _start(shared, engine) as args:
            beam = BeamConfig(args=tuple(args))
            work = list_work(root, beam, folder) if root else {}
            if args is DATAFLOW:
                work = {name: lambda run=run: translate(run) for name, run in work.items()}
            cells |= measure(work, args)
            if whole and args is not DATAFLOW:
                cells['whole run'] = measure_run(folder / 'run', args)
                print(f'  whole run: {cells["whole run"]}', flush=True)
            return cells
    except UsageError as refusal:
        return dict.fromkeys(('data', *STEPS), f'refused: {refusal}')
    except Unavailable as reason:
        return dict.fromkeys(('data', *STEPS), f'not here: {reason}')


def print_table(rows: dict[str, dict[str, str]]) -> None:
    """Prints the rows as Markdown, without the sentences of what was refused."""
    columns = ('data', *STEPS, 'whole run')
    print('\n| engine |', ' | '.join(columns), '|\n|', ' | '.join(['---'] * (len(columns) + 1)), '|')
    for engine, cells in rows.items():
        print('|', ' | '.join([engine, *(cells.get(name, '-').partition(':')[0] for name in columns)]), '|')


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('--engine', choices=ENGINES, action='append', help='only this one; default: all')
    parser.add_argument('--only', choices=('steps', 'runs'), help='only the steps, or only the whole runs')
    arguments = parser.parse_args()
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), None
        if arguments.only != 'runs':
            root = folder / 'root'
            print(f'the run whose steps are repeated: {measure_run(root, BeamConfig().args)}', flush=True)
        rows = {}
        for engine in arguments.engine or ENGINES:
            print(engine, flush=True)
            rows[engine] = measure_engine(engine, root, folder, whole=arguments.only != 'steps')
    print_table(rows)
    result: Result = {engine: dict(cells) for engine, cells in rows.items()}
    finish(result)


if __name__ == '__main__':
    main()
