"""The command line's words: every command with its options and its help. Nothing heavy is imported here."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.config import PRESETS
from pipeline.console import measure_width, wrap_text
from pipeline.settings_help import describe_settings

COMMANDS: dict[str, dict[str, str]] = {
    'to start with': {
        'run': 'run the whole pipeline on this machine',
        'predict': 'classify images with a pushed model',
        'batch': 'predict any number of images on Beam; can be stopped and resumed',
        'doctor': 'check whether this machine can run the pipeline',
    },
    'your data': {'data': 'write CIFAR-10 or your own pictures as TFRecords'},
    'your runs': {
        'runs': 'list the runs: when, what was new, how accurate, what came of it',
        'report': 'write a run as one HTML page',
        'compare': 'show the settings and figures of two runs side by side',
        'worker': 'train on several machines, each of which runs this command',
        'tensorboard': 'show the trainings of all runs in TensorBoard',
        'gc': 'free the disk that the artifacts of old runs take',
    },
    'the models that are served': {
        'serve': 'start a model server for a serving folder',
        'versions': 'list the pushed versions',
        'promote': 'give a version the version label stable or canary',
        'rollback': 'make the version that was stable before stable again',
        'prune': 'remove old versions that have no version label',
        'drift': 'say whether a version is asked about other images than it was tested with',
    },
    'Kubeflow Pipelines': {
        'compile': 'write the pipeline as a package for Kubeflow Pipelines',
        'lint': 'say what a Kubeflow Pipelines server would refuse or ignore in a package',
        'rehearse': "run a package's own container commands on this machine",
        'submit': 'upload a package to Kubeflow Pipelines, start a run and watch it',
        'trainjob': "write a Kubernetes manifest that runs a package's Trainer in several pods",
    },
}
"""Every command with one line of help, grouped by what a newcomer wants."""

_HELP = {name: text for group in COMMANDS.values() for name, text in group.items()}

Commands = Any  # what add_subparsers returns; argparse has no public name for its class


class _SettingsHelp(argparse.Action):
    """Prints a command's options and its settings, and exits."""

    def __init__(self, *, describe: Callable[[], str], **options: Any):
        super().__init__(nargs=0, default=argparse.SUPPRESS, **options)
        self._describe = describe

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # such as by `| head`
            sys.stdout.write(f'{parser.format_help()}\n{self._describe()}\n')
            sys.stdout.flush()
        parser.exit()


def _describe_preset(arguments: Sequence[str], hidden: tuple[str, ...], *, everything: bool) -> str:
    """Describes the settings of the preset that the whole command line names, before or after --help."""
    parser = argparse.ArgumentParser(prog='python -m pipeline', add_help=False, allow_abbrev=False)
    _add_preset(parser)
    preset = parser.parse_known_args(list(arguments))[0].preset
    width = measure_width(sys.stdout)
    return describe_settings(preset, PRESETS[preset]('ROOT'), everything=everything, hidden=hidden, width=width)


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--preset', choices=PRESETS, default='sample', help='default: %(default)s')


def _add_settings(parser: argparse.ArgumentParser, arguments: Sequence[str], hidden: tuple[str, ...]) -> None:
    describe = functools.partial(_describe_preset, arguments, hidden)
    parser.add_argument(
        *('-h', '--help'),
        action=_SettingsHelp,
        describe=functools.partial(describe, everything=False),
        help='show this and the settings that people change first, with the values of the preset',
    )
    parser.add_argument(
        '--help-all',
        action=_SettingsHelp,
        describe=functools.partial(describe, everything=True),
        help='show this and all settings',
    )
    _add_preset(parser)
    parser.add_argument('--set', metavar='KEY=VALUE', action='append', default=[], help='override a setting')


def _add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--classes',
        metavar='FILE',
        help='the class names, one on each line in the order of the labels, for TFRecords that others made',
    )


def _add_run_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    _add_settings(parser, arguments, hidden=('kubeflow.',))
    parser.add_argument('--data', metavar='DIR', help='TFRecords in train/, val/, test/; default: the embedded sample')
    _add_classes(parser)
    parser.add_argument('--root', metavar='DIR', help='folder for all results; default: runs/PRESET')


def _add_compile(commands: Commands, arguments: Sequence[str]) -> None:
    parser = _add_command(commands, 'compile', add_help=False)
    # Of the steps' settings, those of one step stand for all.
    _add_settings(parser, arguments, hidden=('kubeflow.steps.',))
    parser.epilog = 'Each kubeflow.default.NAME can be set for one step too, such as kubeflow.steps.Trainer.gpu=1.'
    parser.add_argument('--out', metavar='FILE.yaml', required=True, help='file to write')
    parser.add_argument('--image', required=True, help='container image of every step, with a tag or digest')
    parser.add_argument('--gpu-image', metavar='IMAGE', help='container image of the steps with a GPU')
    parser.add_argument(
        '--pipeline-root', metavar='URI', required=True, help='where artifacts go: minio://, s3:// or gs://'
    )
    parser.add_argument(
        '--data', metavar='DIR', required=True, help='TFRecords in train/, val/, test/; on a volume, s3:// or gs://'
    )
    _add_classes(parser)
    parser.add_argument('--serving', metavar='DIR', required=True, help='where models go; on a volume, s3:// or gs://')
    parser.add_argument('--webhook', metavar='URL', help='address that is told how a run ended')


def _add_data(commands: Commands) -> None:
    data = _add_command(commands, 'data')
    data.add_argument('--out', metavar='DIR', required=True, help='folder to make')
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument('--sample', action='store_true', help='the embedded synthetic images')
    source.add_argument('--archive', metavar='FILE', help='a local cifar-10-binary.tar.gz or cifar-100-binary.tar.gz')
    source.add_argument(
        '--download',
        nargs='?',
        choices=('cifar10', 'cifar100'),
        const='cifar10',
        help='the official archive, 170 MB; without a name that of CIFAR-10',
    )
    source.add_argument('--images', metavar='FOLDER', help='your own pictures, in FOLDER/CLASS or FOLDER/SPLIT/CLASS')
    data.add_argument('--labels', choices=('fine', 'coarse'), help="which of CIFAR-100's labels; default: fine")
    data.add_argument('--limit', metavar='N', type=int, help='keep N records, the same share of every batch')
    own = data.add_argument_group('with --images')
    own.add_argument('--csv', metavar='FILE', help='has the columns image,label[,split], with paths below FOLDER')
    own.add_argument('--size', metavar='N', type=int, help='pixels of the shorter side of what is stored; default: 256')
    own.add_argument('--group-by', metavar='REGEX', help='never divide pictures for which it matches the same text')


def _add_package_commands(commands: Commands) -> None:
    lint = _add_command(commands, 'lint')
    lint.add_argument('file', metavar='FILE.yaml', help='a compiled package')

    rehearse = _add_command(commands, 'rehearse')
    rehearse.add_argument('package', metavar='FILE.yaml', help='what compile wrote')
    rehearse.add_argument('--root', metavar='DIR', default='runs/rehearsal', help='default: %(default)s')
    rehearse.add_argument(
        '--mount', metavar='PATH=DIR', action='append', default=[], help="the folder here for a volume's path"
    )
    rehearse.add_argument(
        '--parameter',
        metavar='NAME=VALUE',
        action='append',
        default=[],
        help='value of a parameter of the package, JSON or text; may be given several times',
    )

    submit = _add_command(commands, 'submit')
    submit.add_argument('package', metavar='FILE.yaml', help='what compile wrote')
    submit.add_argument('--host', metavar='URL', required=True, help='address of the server: http://HOST:PORT')
    submit.add_argument('--experiment', metavar='NAME', default='Default', help='default: %(default)s')
    submit.add_argument('--recurring', metavar='CRON', help='run again and again: six fields, seconds first')
    submit.add_argument(
        '--parameter',
        metavar='KEY=VALUE',
        action='append',
        default=[],
        help='value of a parameter of the package; may be given several times',
    )
    submit.add_argument('--service-account', metavar='NAME', help="service account of the pods; default: the server's")
    submit.add_argument('--no-wait', action='store_true', help='start the run and do not watch it')


def _add_trainjob(commands: Commands) -> None:
    parser = _add_command(commands, 'trainjob')
    parser.add_argument('package', metavar='FILE.yaml', help='what compile wrote')
    parser.add_argument('--out', metavar='FILE.yaml', required=True, help='file to write')
    parser.add_argument(
        '--folder',
        metavar='DIR',
        required=True,
        help='folder on a volume that the Trainer mounts, with examples/, transform_graph/ and schema/',
    )
    parser.add_argument('--workers', metavar='N', type=int, required=True, help='number of pods, at least 2')
    parser.add_argument(
        '--kind',
        choices=('TrainJob', 'TFJob'),
        default='TrainJob',
        help='TrainJob for Kubeflow Trainer v2, TFJob for the training operator v1; default: %(default)s',
    )
    parser.add_argument(
        '--parameter',
        metavar='KEY=VALUE',
        action='append',
        default=[],
        help='value of a parameter of the package; may be given several times',
    )


def _add_batch(commands: Commands) -> None:
    batch = _add_command(commands, 'batch')
    batch.add_argument('--model', metavar='DIR', required=True, help='a serving folder, or one version in it')
    batch.add_argument(
        '--input', metavar='PATH', required=True, help='folder of images or of TFRecords, or a quoted glob of TFRecords'
    )
    batch.add_argument(
        '--out', metavar='DIR', required=True, help='folder for the results; what is finished in it stays'
    )
    batch.add_argument('--format', choices=('parquet', 'jsonl'), default='parquet', help='default: %(default)s')
    batch.add_argument(
        '--set',
        metavar='KEY=VALUE',
        action='append',
        default=[],
        help='a setting of beam.*, such as beam.args=--runner=FlinkRunner,...',
    )


def _add_predict(commands: Commands) -> None:
    predict = _add_command(commands, 'predict')
    predict.add_argument(
        'images',
        metavar='IMAGE',
        nargs='+',
        help='file; folder of images; glob in quotes, such as "photos/**/*.jpg"; .csv file with a column image',
    )
    where = predict.add_mutually_exclusive_group(required=True)
    where.add_argument('--model', metavar='DIR', help='a serving folder, or one version in it')
    where.add_argument('--server', metavar='HOST:PORT', help='a running model server; https://HOST:PORT for TLS')
    predict.add_argument('--grpc', action='store_true', help='speak gRPC to the server, and not REST')
    which = predict.add_mutually_exclusive_group()
    which.add_argument('--label', help='version label of the version that answers, such as stable')
    which.add_argument('--version', metavar='N', type=int, help='the version that answers')
    predict.add_argument('--top', metavar='K', type=int, help='name the K most probable classes')
    predict.add_argument('--format', choices=('json', 'csv'), default='json', help='default: %(default)s')
    predict.add_argument('--out', metavar='FILE', help='file to write; default: standard output')


def _add_model_commands(commands: Commands) -> None:
    versions = _add_command(commands, 'versions')
    promote = _add_command(commands, 'promote')
    promote.add_argument('number', metavar='N', type=int, help='the version')
    promote.add_argument('--label', choices=('canary', 'stable'), default='stable', help='default: %(default)s')
    promote.add_argument('--server', metavar='URL', help='REST address of the server to wait for: http://HOST:8501')
    rollback = _add_command(commands, 'rollback')
    prune = _add_command(commands, 'prune')
    prune.add_argument('--keep', metavar='K', type=int, required=True, help='how many of the newest to keep')
    for command in (versions, promote, rollback, prune):
        command.add_argument('--serving', metavar='DIR', required=True, help='the folder of versions, ROOT/serving')


def _add_drift(commands: Commands) -> None:
    drift = _add_command(commands, 'drift')
    drift.add_argument('--serving', metavar='DIR', required=True, help='the folder of versions, ROOT/serving')
    drift.add_argument(
        '--requests',
        metavar='LOG',
        required=True,
        help='folder or file of a request sample, or a quoted glob of TFRecord files of PredictionLogs',
    )
    which = drift.add_mutually_exclusive_group()
    which.add_argument('--version', metavar='N', type=int, help='default: the stable version, else the newest')
    which.add_argument('--label', metavar='LABEL', help='the version that has this version label')
    drift.add_argument('--json', action='store_true', help='print JSON, for a program')


def _add_serve(commands: Commands) -> None:
    serve = _add_command(commands, 'serve')
    serve.add_argument('--serving', metavar='DIR', required=True, help='the folder of versions, ROOT/serving')
    serve.add_argument('--port', metavar='N', type=int, default=8500, help='for gRPC; default: %(default)s')
    serve.add_argument('--rest-port', metavar='N', type=int, default=8501, help='for REST; default: %(default)s')
    serve.add_argument(
        '--engine',
        choices=('tensorflow-serving', 'docker', 'small'),
        help="the server: TensorFlow Serving on PATH, its image in Docker, or this project's small one; "
        'default: the first that is here',
    )
    serve.add_argument('--requests', metavar='DIR', help='folder for a sample of the requests, which drift reads')


def _add_run_commands(commands: Commands) -> None:
    names = ('runs', 'compare', 'worker', 'tensorboard', 'gc')
    runs, compare, worker, tensorboard, gc = (_add_command(commands, name) for name in names)
    for name, position, default in (('first', 'A', 'previous'), ('second', 'B', 'last')):
        compare.add_argument(
            name,
            metavar=position,
            nargs='?',
            default=default,
            help='id of a run, number of the version that it pushed, last or previous; default: %(default)s',
        )
    compare.add_argument('--out', metavar='FILE.html', help="write B's report too, compared with A")
    gc.add_argument('--keep', metavar='N', type=int, required=True, help='how many of the newest runs keep everything')
    gc.add_argument('--dry-run', action='store_true', help='only say how much would be freed')
    tensorboard.add_argument(
        '--port',
        metavar='N',
        type=int,
        default=6006,
        help='port of this machine; 0 for a free one; default: %(default)s',
    )
    for command in (runs, compare, worker, tensorboard, gc):
        command.add_argument('--root', metavar='DIR', required=True, help='the root of the runs, such as runs/sample')
    for command in (runs, compare):
        command.add_argument('--json', action='store_true', help='print JSON, for a program')


def _add_report(commands: Commands) -> None:
    report = _add_command(commands, 'report')
    report.add_argument('--root', metavar='DIR', required=True, help='folder of results that `run` was given')
    report.add_argument('--run', metavar='ID', help='the run, as for compare; default: the newest')
    report.add_argument('--out', metavar='FILE.html', help='file to write; default: ROOT/report-ID.html')
    report.add_argument('--open', action='store_true', help='open the page in the browser')


def _add_command(commands: Commands, name: str, **options: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, description=f'{_HELP[name][0].upper()}{_HELP[name][1:]}.', **options
    )
    return parser


def describe_commands(width: int | None) -> str:
    """Returns every command with a line of help, in groups."""
    blocks = []
    for title, group in COMMANDS.items():
        blocks.append('\n'.join([f'{title}:', *(f'  {name:<11} {text}' for name, text in group.items())]))
    blocks.append('A first run:         python -m pipeline run\nHelp on a command:   python -m pipeline COMMAND --help')
    return wrap_text('\n\n'.join(blocks), width, hang=' ' * 13)


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Builds the parser of the whole command line.

    Args:
      arguments: the command line; --help shows the values of the preset that it names.
    """
    parser = argparse.ArgumentParser(
        prog='python -m pipeline',
        usage='%(prog)s [-h] COMMAND ...',
        description='CIFAR-10 to a served ResNet50, with TFX.',
        epilog=describe_commands(measure_width(sys.stdout)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        required=True, metavar='COMMAND', dest='command', prog='python -m pipeline', help=argparse.SUPPRESS
    )
    for name in ('run', 'doctor'):
        _add_run_options(_add_command(commands, name, add_help=False), arguments)
    _add_data(commands)
    _add_compile(commands, arguments)
    _add_package_commands(commands)
    _add_trainjob(commands)
    _add_run_commands(commands)
    _add_predict(commands)
    _add_batch(commands)
    _add_model_commands(commands)
    _add_serve(commands)
    _add_drift(commands)
    _add_report(commands)
    for name in ('data', 'run', 'compile', 'predict', 'batch', 'submit', 'report', 'worker'):
        output = commands.choices[name].add_mutually_exclusive_group()
        if name in ('data', 'run'):
            _add_output_options(output, name)
        output.add_argument('--verbose', action='store_true', help="show the libraries' own output on standard error")
    return parser


def _add_output_options(group: Any, command: str) -> None:
    """Adds the ways in which a command shows what it does.

    Args:
      group: of options of which one can be given.
      command: 'run' or 'data'.
    """
    closing = {'run': 'where the results are, and the verdict', 'data': 'what was written'}[command]
    group.add_argument('--quiet', action='store_true', help=f'print only the closing lines: {closing}')
    group.add_argument(
        '--json', action='store_true', help='print events, each a JSON object in a line, and nothing else'
    )
