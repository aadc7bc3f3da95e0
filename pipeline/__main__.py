"""The command line: parses and calls, no logic. Heavy modules are imported by the command that needs them."""

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec('tfx') is None:  # before the first import that would fail
    sys.stderr.write(
        f'error: {sys.executable} lacks packages that the pipeline needs; make the environment with '
        '`make env`, then run .venv/bin/python in place of it, or first: source .venv/bin/activate\n'
    )
    raise SystemExit(2)

from components.contract import read_class_names
from components.environment import choose_variables
from components.errors import PipelineError, UsageError
from components.places import locate
from pipeline.arguments import build_parser
from pipeline.config import PRESETS, BeamConfig, Layout, PipelineConfig, SampleConfig
from pipeline.console import divert_chatter, print_line, shorten_paths
from pipeline.events import Started
from pipeline.imports import BEAM_MODULES, KFP_MODULES, TFX_MODULES, track_imports
from pipeline.interruption import EXIT_INTERRUPTED, GRACE_S, Interruption, watch_interrupts
from pipeline.next_steps import NEWCOMER, make_command
from pipeline.overrides import apply_overrides
from pipeline.reporter import Reporter, choose_mode, open_reporter

_GO_ON = {
    'run': 'run the same command again to go on: what is finished is reused',
    'submit': 'a run that was started on the server goes on there',
    'serve': 'the server has been stopped',
}
"""What to do after an interrupt, by command."""


def _add_classes(config: PipelineConfig, file: str | None) -> PipelineConfig:
    return dataclasses.replace(config, class_names=read_class_names(Path(file))) if file else config


def _make_config(arguments: argparse.Namespace) -> PipelineConfig:
    root = arguments.root or Path('runs') / arguments.preset
    config = PRESETS[arguments.preset](str(Path(root).absolute()))
    unread = next((text for text in arguments.set if text.startswith(('kubeflow.', 'kubeflow='))), None)
    if unread:
        raise UsageError(
            f'--set {unread}: a run on this machine reads no setting of kubeflow.*; `python -m pipeline compile` does.'
        )
    assignments = list(arguments.set)
    if arguments.data:
        data = arguments.data if '://' in arguments.data else Path(arguments.data).absolute()
        assignments.insert(0, f'data={data}')
    config = apply_overrides(_add_classes(config, arguments.classes), assignments)
    if not config.data and arguments.preset != 'sample':
        raise UsageError(
            f'--preset {arguments.preset} needs --data DIR; `python -m pipeline data --help` says how to make one.'
        )
    return config


def _run(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import local

    command = make_command(*arguments.argv)
    return local.run(_make_config(arguments), reporter, verbose=arguments.verbose, command=command)


def _check_picture_options(arguments: argparse.Namespace) -> None:
    if arguments.images and arguments.limit is not None:
        raise UsageError(
            '--limit does not apply to --images; take pictures out of the folder, or name some with --csv.'
        )
    given = [name for name in ('csv', 'size', 'group_by') if getattr(arguments, name) is not None]
    if given and not arguments.images:
        raise UsageError(f'--{given[0].replace("_", "-")} says something about your own pictures; it needs --images.')


def _data(arguments: argparse.Namespace, reporter: Reporter) -> int:
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f'--limit takes a number of at least 1. Received: {arguments.limit}')
    if arguments.labels and not (arguments.archive or arguments.download):
        raise UsageError('--labels chooses between the labels of CIFAR-100; it needs --archive FILE or --download.')
    _check_picture_options(arguments)
    out, limit, beam, labels = Path(arguments.out).absolute(), arguments.limit, BeamConfig(), arguments.labels
    with divert_chatter(verbose=arguments.verbose):
        from pipeline import data, data_images

        reporter.report(Started(command='data'))
        if arguments.images:
            csv_file = Path(arguments.csv).absolute() if arguments.csv else None
            folder, size = Path(arguments.images).absolute(), arguments.size
            note = data_images.write_from_images(folder, out, csv_file=csv_file, size=size, group_by=arguments.group_by)
        elif arguments.archive:
            note = data.write_from_archive(Path(arguments.archive), out, limit=limit, beam=beam, labels=labels)
        elif arguments.download:
            note = data.write_from_download(arguments.download, out, limit=limit, beam=beam, labels=labels)
        else:
            note = data.write_from_sample(SampleConfig(), out, limit=limit, beam=beam)
    reporter.finish(0, note)
    return 0


def _check_out(text: str) -> Path:
    out = Path(text).absolute()
    if out.suffix != '.yaml' or not out.parent.is_dir():
        raise UsageError(f'--out takes a file that ends in .yaml, in a folder that exists. Received: {text}')
    return out


def _compile(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from kubeflow.target import Target

    config = _add_classes(PRESETS[arguments.preset](arguments.pipeline_root), arguments.classes)
    places = [f'data={arguments.data}', f'serving={arguments.serving}']
    config = apply_overrides(config, [*places, *arguments.set])
    target = Target(
        image=arguments.image,
        gpu_image=arguments.gpu_image,
        pipeline_root=arguments.pipeline_root,
        webhook=arguments.webhook,
    )
    target.check(config)
    out = _check_out(arguments.out)
    with divert_chatter(verbose=arguments.verbose):
        with track_imports(TFX_MODULES):
            from kubeflow import compile

        note = compile.write_package(config, target, out)
    print_line(note, sys.stdout)
    return 0


def _lint(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from kubeflow.lint.linter import lint_file

    problems = lint_file(Path(arguments.file))
    for problem in problems:
        print(f'{problem.severity}: {problem.where}: {problem.what} {problem.mend}')
    return 1 if any(problem.severity == 'error' for problem in problems) else 0


def _rehearse(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from kubeflow.rehearsal.rehearse import rehearse_package

    return rehearse_package(Path(arguments.package), Path(arguments.root), arguments.mount, arguments.parameter)


def _trainjob(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from kubeflow import trainjob

    out = _check_out(arguments.out)
    job = trainjob.TrainJob(
        package=Path(arguments.package),
        folder=arguments.folder.rstrip('/'),
        workers=arguments.workers,
        kind=arguments.kind,
        assignments=arguments.parameter,
    )
    print_line(trainjob.write_job(job, out), sys.stdout)
    return 0


def _predict(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import image_sources, predict

    output = predict.make_output(arguments.format, arguments.top, arguments.out)
    if arguments.grpc and not arguments.server:
        raise UsageError('--grpc says how to speak to a server; it needs --server HOST:PORT.')
    sources = image_sources.find_sources(arguments.images)
    with divert_chatter(verbose=arguments.verbose) as terminal:
        if arguments.server:
            from pipeline.client import connect

            classifier = connect(
                arguments.server, grpc=arguments.grpc, label=arguments.label, version=arguments.version
            )
        else:
            from pipeline.local_model import load_model

            classifier = load_model(locate(arguments.model), arguments.label, arguments.version)
        with classifier:
            failures = predict.predict(classifier, sources, output, terminal, reporter)
    for failure in failures:
        _print_error(failure)
    return 1 if failures else 0


def _batch(arguments: argparse.Namespace, reporter: Reporter) -> int:
    foreign = next((text for text in arguments.set if not text.startswith('beam.')), None)
    if foreign:
        raise UsageError(f'--set {foreign}: `batch` reads only the settings of beam.*, such as beam.args.')
    beam = apply_overrides(PRESETS['sample']('.'), arguments.set).beam

    from pipeline.batch.shards import find_input

    asked, out = find_input(arguments.input), locate(arguments.out)
    with divert_chatter(verbose=arguments.verbose):
        with track_imports(BEAM_MODULES):
            from pipeline.batch.batch import predict_batch
            from pipeline.local_model import choose_version

        outcome = predict_batch(
            choose_version(locate(arguments.model)), asked, arguments.input, out, arguments.format, beam
        )
    print_line(outcome.to_sentence(out), sys.stdout)
    return 0


def _serving(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import serving

    folder = locate(arguments.serving)
    if arguments.command == 'versions':
        print('\n'.join(serving.describe_versions(folder)))
    elif arguments.command == 'promote':
        print(serving.promote(folder, arguments.number, arguments.label, arguments.server))
    elif arguments.command == 'rollback':
        print(serving.rollback(folder))
    else:
        print(serving.prune(folder, arguments.keep))
    return 0


def _drift(arguments: argparse.Namespace, reporter: Reporter) -> int:
    with divert_chatter(verbose=False):  # TensorFlow's, which reads PredictionLogs
        from pipeline import drift

        serving = locate(arguments.serving)
        found = drift.measure_drift(serving, arguments.requests, arguments.version, arguments.label)
    answer: Any = drift.to_dict(found) if arguments.json else drift.describe_drift(found)
    _print_answer(answer, is_json=arguments.json)
    return drift.EXIT_DRIFT if found.verdict == 'drift' else 0


def _serve(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import serve

    ports = arguments.port, arguments.rest_port
    return serve.serve(locate(arguments.serving), ports, arguments.engine, arguments.requests)


def _print_answer(answer: Any, *, is_json: bool) -> None:
    """Prints a list of lines, or any value as JSON; ends quietly where the reader has left."""
    text = json.dumps(answer, indent=2) if is_json else shorten_paths('\n'.join(answer))
    try:
        print(text, flush=True)
    except BrokenPipeError:  # such as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _runs(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import run_history, runs

    found = run_history.read_runs(Layout(arguments.root))
    answer: Any = [runs.to_dict(run) for run in found] if arguments.json else runs.describe_runs(found)
    _print_answer(answer, is_json=arguments.json)
    return 0


def _compare(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import compare, run_history

    layout = Layout(arguments.root)
    found = run_history.read_runs(layout)
    first, second = (run_history.find_run(found, text, layout.root) for text in (arguments.first, arguments.second))
    answer: Any = (compare.compare_runs if arguments.json else compare.describe_comparison)(first, second)
    if arguments.out:
        out = Path(arguments.out).absolute()
        with divert_chatter(verbose=False):
            from pipeline.report import report

            report.write_comparison(layout.root, first, second, out)
        answer = answer if arguments.json else [*answer, '', f'report {out}']
    _print_answer(answer, is_json=arguments.json)
    return 0


def _worker(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import worker

    print_line(worker.work(Layout(arguments.root), verbose=arguments.verbose), sys.stdout)
    return 0


def _tensorboard(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import tensorboard

    return tensorboard.show(arguments.root, arguments.port)


def _gc(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import gc

    print_line(gc.collect(Layout(arguments.root), arguments.keep, is_dry=arguments.dry_run), sys.stdout)
    return 0


def _submit(arguments: argparse.Namespace, reporter: Reporter) -> int:
    with divert_chatter(verbose=arguments.verbose) as terminal:
        with track_imports(KFP_MODULES):
            from kubeflow import submit

        submission = submit.Submission(
            package=Path(arguments.package),
            host=arguments.host,
            experiment=arguments.experiment,
            cron=arguments.recurring,
            assignments=arguments.parameter,
            wait=not arguments.no_wait,
            service_account=arguments.service_account,
        )
        return submit.submit(submission, terminal)


def _report(arguments: argparse.Namespace, reporter: Reporter) -> int:
    out = Path(arguments.out).absolute() if arguments.out else None
    with divert_chatter(verbose=arguments.verbose):
        from pipeline.report import report

        file, figures = report.write_report(Path(arguments.root).absolute(), arguments.run, out)
    print_line(f'{figures.verdict}\nreport {file}', sys.stdout)
    if arguments.open:
        import webbrowser

        webbrowser.open(file.as_uri())
    return 0


def _doctor(arguments: argparse.Namespace, reporter: Reporter) -> int:
    from pipeline import doctor

    return doctor.report(_make_config(arguments))


_CALLS: dict[str, Callable[[argparse.Namespace, Reporter], int]] = {
    'run': _run,
    'predict': _predict,
    'batch': _batch,
    'doctor': _doctor,
    'report': _report,
    'data': _data,
    'runs': _runs,
    'compare': _compare,
    'worker': _worker,
    'tensorboard': _tensorboard,
    'gc': _gc,
    'serve': _serve,
    'versions': _serving,
    'promote': _serving,
    'rollback': _serving,
    'prune': _serving,
    'drift': _drift,
    'compile': _compile,
    'lint': _lint,
    'rehearse': _rehearse,
    'submit': _submit,
    'trainjob': _trainjob,
}


def _print_error(message: object) -> None:
    print_line(f'error: {message}', sys.stderr)


def _end(error: Exception, arguments: argparse.Namespace, interruption: Interruption, reporter: Reporter) -> int:
    """Shows the error that ended the command, and returns the exit code.

    Libraries make errors of an interrupt, so an error after one is not shown, except that of `submit`: it says where
    the run goes on.
    """
    is_ours = isinstance(error, PipelineError)
    if interruption.is_requested and not (is_ours and arguments.command == 'submit'):
        interruption.print_sentence()
        return EXIT_INTERRUPTED
    if isinstance(error, PipelineError):
        interruption.mark_told()
        exit_code, message = error.exit_code, str(error)
    else:
        hint = '; --verbose shows where' if 'verbose' in arguments else ''
        exit_code, message = 1, f'unexpected {type(error).__name__}: {error}{hint}'
    exit_code = EXIT_INTERRUPTED if interruption.is_requested else exit_code
    reporter.finish(exit_code, message)
    if not is_ours and getattr(arguments, 'verbose', False):
        raise error
    _print_error(message)
    return exit_code


def _call(arguments: argparse.Namespace, interruption: Interruption) -> int:
    """Runs the command and returns the exit code."""
    # Standard output of the other commands is what they were asked for, and perhaps read by a program.
    shows_itself = arguments.command in ('run', 'data')
    descriptor = 1 if shows_itself else 2
    is_quiet, is_json, is_verbose = (getattr(arguments, name, False) for name in ('quiet', 'json', 'verbose'))
    is_json = is_json and shows_itself  # the other commands' --json is about their answer
    mode = choose_mode(descriptor, is_quiet=is_quiet, is_json=is_json, is_verbose=is_verbose)
    with open_reporter(mode, descriptor) as reporter:
        interruption.on_end = functools.partial(reporter.interrupt, EXIT_INTERRUPTED, interruption.sentence)
        try:
            return _CALLS[arguments.command](arguments, reporter)
        except KeyboardInterrupt:
            interruption.print_sentence()
            return EXIT_INTERRUPTED
        except Exception as error:
            return _end(error, arguments, interruption, reporter)


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
      The exit code: 0 done, 1 an error, 2 wrong usage, 3 the model was refused, 4 the data was refused, 130 Ctrl-C.
    """
    os.environ.update(choose_variables())
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser(argv)
    if not argv:
        print(NEWCOMER, file=sys.stderr)
        return UsageError.exit_code
    arguments = parser.parse_args(argv, argparse.Namespace(argv=argv))
    go_on = _GO_ON.get(arguments.command, 'run the same command again')
    grace_s = 15.0 if arguments.command == 'serve' else GRACE_S  # a server first answers the requests that it has
    with watch_interrupts(f'interrupted; {go_on}', grace_s) as interruption:
        return _call(arguments, interruption)


if __name__ == '__main__':
    sys.exit(main())
