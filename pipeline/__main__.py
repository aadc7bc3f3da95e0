"""The command line: parses and calls, no logic. Heavy modules are imported by the command that needs them."""

import argparse
import os
import sys
from pathlib import Path

from components.errors import PipelineError, UsageError
from components.places import locate
from pipeline.config import PRESETS, BeamConfig, PipelineConfig, SampleConfig
from pipeline.console import divert_chatter
from pipeline.overrides import apply_overrides, list_fields


def _make_config(arguments: argparse.Namespace) -> PipelineConfig:
    root = arguments.root or Path('runs') / arguments.preset
    config = PRESETS[arguments.preset](str(Path(root).absolute()))
    assignments = list(arguments.set)
    if arguments.data:
        data = arguments.data if '://' in arguments.data else Path(arguments.data).absolute()
        assignments.insert(0, f'data={data}')
    config = apply_overrides(config, assignments)
    if not config.data and arguments.preset != 'sample':
        raise UsageError(
            f'--preset {arguments.preset} needs --data DIR; `python -m pipeline data --help` says how to make one.'
        )
    return config


def _run(arguments: argparse.Namespace) -> int:
    from pipeline import local

    return local.run(_make_config(arguments), verbose=arguments.verbose)


def _data(arguments: argparse.Namespace) -> int:
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f'--limit takes a number of at least 1. Received: {arguments.limit}')
    out, options = Path(arguments.out).absolute(), {'limit': arguments.limit, 'beam': BeamConfig()}
    with divert_chatter(verbose=arguments.verbose) as terminal:
        from pipeline import data

        if arguments.archive:
            note = data.write_from_archive(Path(arguments.archive), out, **options)
        elif arguments.download:
            note = data.write_from_download(out, **options, progress=terminal)
        else:
            note = data.write_from_sample(SampleConfig(), out, **options)
    print(note)
    return 0


def _compile(arguments: argparse.Namespace) -> int:
    from kubeflow.target import Target

    config = PRESETS[arguments.preset](arguments.pipeline_root)
    places = [f'data={arguments.data}', f'serving={arguments.serving}']
    config = apply_overrides(config, [*places, *arguments.set])
    target = Target(
        image=arguments.image,
        gpu_image=arguments.gpu_image,
        pipeline_root=arguments.pipeline_root,
        webhook=arguments.webhook,
    )
    out = Path(arguments.out).absolute()
    target.check(config)
    if out.suffix != '.yaml' or not out.parent.is_dir():
        raise UsageError(f'--out takes a file that ends in .yaml, in a folder that exists. Received: {arguments.out}')
    with divert_chatter(verbose=arguments.verbose):
        from kubeflow import compile

        note = compile.write_package(config, target, out)
    print(note)
    return 0


def _lint(arguments: argparse.Namespace) -> int:
    from kubeflow.lint.linter import lint_file

    problems = lint_file(Path(arguments.file))
    for problem in problems:
        print(f'{problem.severity}: {problem.where}: {problem.what} {problem.mend}')
    return 1 if any(problem.severity == 'error' for problem in problems) else 0


def _rehearse(arguments: argparse.Namespace) -> int:
    from kubeflow.rehearsal.rehearse import rehearse_package

    return rehearse_package(Path(arguments.package), Path(arguments.root), arguments.mount, arguments.parameter)


def _predict(arguments: argparse.Namespace) -> int:
    with divert_chatter(verbose=arguments.verbose) as terminal:
        from pipeline import predict

        failures = predict.predict(locate(arguments.model), [Path(image) for image in arguments.images], terminal)
    for failure in failures:
        print(f'error: {failure}', file=sys.stderr)
    return 1 if failures else 0


def _serving(arguments: argparse.Namespace) -> int:
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


def _submit(arguments: argparse.Namespace) -> int:
    with divert_chatter(verbose=arguments.verbose) as terminal:
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


def _doctor(arguments: argparse.Namespace) -> int:
    from pipeline import doctor

    return doctor.report(_make_config(arguments))


def _add_settings(parser: argparse.ArgumentParser, hidden: str, note: str = '') -> None:
    fields = list_fields(PRESETS['cifar10']('ROOT'))
    settings = '\n'.join(f'  {key} = {value}' for key, value in fields.items() if not key.startswith(hidden))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f'settings, with the values of the preset cifar10:\n{settings}{note}'
    parser.add_argument('--preset', choices=PRESETS, default='sample', help='default: %(default)s')
    parser.add_argument('--set', metavar='KEY=VALUE', action='append', default=[], help='override a setting')


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser, 'kubeflow.')
    parser.add_argument('--data', metavar='DIR', help='TFRecords in train/, val/, test/; default: the embedded sample')
    parser.add_argument('--root', metavar='DIR', help='where all results go; default: runs/PRESET')


def _add_compile_options(parser: argparse.ArgumentParser) -> None:
    _add_settings(
        parser, 'kubeflow.steps.', note='\n  kubeflow.steps.STEP.cpu and so on, such as kubeflow.steps.Trainer.gpu=1'
    )
    parser.add_argument('--out', metavar='FILE.yaml', required=True, help='file to write')
    parser.add_argument('--image', required=True, help='of every step, with a tag or digest')
    parser.add_argument('--gpu-image', metavar='IMAGE', help='of the steps with a GPU')
    parser.add_argument(
        '--pipeline-root', metavar='URI', required=True, help='of the artifacts: minio://, s3://, gs://'
    )
    parser.add_argument(
        '--data', metavar='DIR', required=True, help='TFRecords in train/, val/, test/; on a volume, s3:// or gs://'
    )
    parser.add_argument('--serving', metavar='DIR', required=True, help='where models go; on a volume, s3:// or gs://')
    parser.add_argument('--webhook', metavar='URL', help='address that is told how a run ended')


def _add_submit(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    submit = commands.add_parser('submit', help='upload a compiled package to Kubeflow Pipelines, run and watch it')
    submit.add_argument('package', metavar='FILE.yaml', help='what `compile` wrote')
    submit.add_argument('--host', metavar='URL', required=True, help='address of the server: http://HOST:PORT')
    submit.add_argument('--experiment', metavar='NAME', default='Default', help='default: %(default)s')
    submit.add_argument('--recurring', metavar='CRON', help='run again and again: six fields, seconds first')
    submit.add_argument('--parameter', metavar='KEY=VALUE', action='append', default=[], help='of the pipeline')
    submit.add_argument('--service-account', metavar='NAME', help="of the pods; default: the server's own")
    submit.add_argument('--no-wait', action='store_true', help='start the run and do not watch it')
    submit.set_defaults(call=_submit)
    return submit


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog='python -m pipeline', description='CIFAR-10 to a served ResNet50, with TFX.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND', dest='command')

    data = commands.add_parser('data', help='write CIFAR-10 as TFRecords')
    data.add_argument('--out', metavar='DIR', required=True, help='folder to make')
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument('--sample', action='store_true', help='the embedded synthetic set')
    source.add_argument('--archive', metavar='FILE', help='a local cifar-10-binary.tar.gz')
    source.add_argument('--download', action='store_true', help='the official archive, 170 MB')
    data.add_argument('--limit', metavar='N', type=int, help='keep N records, the same share of every batch')
    data.set_defaults(call=_data)

    run = commands.add_parser('run', help='run the whole pipeline here')
    _add_run_options(run)
    run.set_defaults(call=_run)

    package = commands.add_parser('compile', help='write the pipeline as a package for Kubeflow Pipelines')
    _add_compile_options(package)
    package.set_defaults(call=_compile)

    lint = commands.add_parser('lint', help='say what a Kubeflow Pipelines server would refuse or drop in a package')
    lint.add_argument('file', metavar='FILE.yaml', help='a compiled package')
    lint.set_defaults(call=_lint)

    rehearse = commands.add_parser('rehearse', help="run a package's own container commands here")
    rehearse.add_argument('package', metavar='FILE.yaml', help='what compile wrote')
    rehearse.add_argument('--root', metavar='DIR', default='runs/rehearsal', help='default: %(default)s')
    rehearse.add_argument(
        '--mount', metavar='PATH=DIR', action='append', default=[], help="the folder here for a volume's path"
    )
    rehearse.add_argument(
        '--parameter', metavar='NAME=VALUE', action='append', default=[], help='of the pipeline; JSON or text'
    )
    rehearse.set_defaults(call=_rehearse)

    predict = commands.add_parser('predict', help='classify images with a pushed model')
    predict.add_argument('--model', metavar='DIR', required=True, help='a serving folder, or one version in it')
    predict.add_argument('images', metavar='IMAGE', nargs='+', help='PNG or JPEG')
    predict.set_defaults(call=_predict)

    versions = commands.add_parser('versions', help='list the pushed versions')
    promote = commands.add_parser('promote', help='label a version for TensorFlow Serving')
    promote.add_argument('number', metavar='N', type=int, help='the version')
    promote.add_argument('--label', choices=('canary', 'stable'), default='stable', help='default: %(default)s')
    promote.add_argument('--server', metavar='URL', help='REST address of the server to wait for: http://HOST:8501')
    rollback = commands.add_parser('rollback', help='make the version that was stable before stable again')
    prune = commands.add_parser('prune', help='remove old versions, never one that is labelled')
    prune.add_argument('--keep', metavar='K', type=int, required=True, help='how many of the newest to keep')
    for command in (versions, promote, rollback, prune):
        command.add_argument('--serving', metavar='DIR', required=True, help='the folder of versions, ROOT/serving')
        command.set_defaults(call=_serving)

    doctor = commands.add_parser('doctor', help='check this machine for a run')
    _add_run_options(doctor)
    doctor.set_defaults(call=_doctor)
    submit = _add_submit(commands)
    for command in (data, run, package, predict, submit):
        command.add_argument('--verbose', action='store_true', help="show the libraries' own output on standard error")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 2 wrong usage, 3 model refused, 4 data refused, 1 others."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.call(arguments)
    except PipelineError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if getattr(arguments, 'verbose', False):
            raise
        hint = '; --verbose shows where' if 'verbose' in arguments else ''
        print(f'error: unexpected {type(error).__name__}: {error}{hint}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; run the same command again to go on', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
