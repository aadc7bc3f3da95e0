"""Beam's engines: what `beam.args` needs on each of them, and what a failure of their workers means.

An engine is what a Beam runner gives the work to: this process, or workers in other processes or on other machines. It
is told from Beam's own options, without Beam, which takes seconds to import.
"""

import argparse
import functools
import re
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from components.errors import PipelineError

_WORKER_PLUGIN = 'tfx.components'
"""What a worker imports first. Importing TFX replaces modules that TFDV and TFMA lack in this environment."""
_HERE = ('fnapi', 'direct', 'bundlebaseddirect', 'switchingdirect', 'interactive', 'testdirect')
_PACKAGES = ('sdk_container_image', 'worker_harness_container_image', 'setup_file', 'extra_packages')
_NO_FOLDER = re.compile(
    r'(?:No such file or directory|Read-only file system|No files found based on the file pattern)'
    r"[\s:'\"\\]*([^\s'\"\\\])]*)"
)
_IN_A_WORKER = '[while running'  # which Beam adds to what a function of the pipeline raised
_NO_PLUGIN = re.compile(
    r"No module named '?tfx_bsl|has no attribute 'EvalConfig'|cannot import name '\w+' from 'tfx_bsl"
)


class Engine(NamedTuple):
    """Where Beam does the work."""

    runner: str
    """The runner's name as it was given, such as 'FlinkRunner'."""
    kind: str
    """The same in short, such as 'flink'."""
    environment: str
    """How the engine gets its workers: a value of Beam's `--environment_type`; '' where it takes none."""

    @property
    def is_remote(self) -> bool:
        """Whether workers may be on other machines, with nothing of this one but the folders that both mount."""
        return self.kind == 'dataflow' or self.environment not in ('', 'LOOPBACK')


@functools.cache
def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for name in ('runner', 'environment_type', 'environment_config', 'flink_master', 'spark_master_url', *_PACKAGES):
        parser.add_argument(f'--{name}')
    parser.add_argument('--environment_option', '--environment_options', dest='environment_options')
    parser.add_argument('--extra_package', dest='extra_packages')
    return parser


def _parse(args: Sequence[str]) -> argparse.Namespace:
    return _build_parser().parse_known_args(list(args))[0]


def find_engine(args: Sequence[str]) -> Engine:
    """Tells the engine from Beam's options.

    Args:
      args: Beam's options; without `--runner` the engine is this process.
    """
    options = _parse(args)
    runner = options.runner or 'FnApiRunner'
    kind = runner.rpartition('.')[2].lower().removesuffix('runner')
    if kind in _HERE or kind in ('dataflow', 'dask'):
        return Engine(runner, kind, '')
    # Beam's own defaults, in apache_beam/runners/portability/.
    masters = {'prism': None, 'flink': options.flink_master, 'spark': options.spark_master_url}
    default = 'LOOPBACK' if kind in masters and masters[kind] is None else 'DOCKER'
    return Engine(runner, kind, options.environment_type or default)


def check_engine(args: Sequence[str]) -> None:
    """Checks that the steps can run on the engine.

    Args:
      args: Beam's options.

    Raises:
      ValueError: they cannot; the message is a sentence for the user.
    """
    engine, options = find_engine(args), _parse(args)
    if engine.kind == 'dask':
        raise ValueError(
            f'beam.args names {engine.runner}, which loses records without an error (tried with Dask 2026.8); '
            'docs/scale.md lists the engines that work.'
        )
    has_image = bool(options.environment_config or options.environment_options)
    if engine.kind == 'dataflow':
        has_image = any(getattr(options, name) for name in _PACKAGES)
    if (engine.kind == 'dataflow' or engine.environment == 'DOCKER') and not has_image:
        option = '--sdk_container_image' if engine.kind == 'dataflow' else '--environment_config'
        raise ValueError(
            f"beam.args names {engine.runner} and no image for its workers, and Beam's own image lacks TFX and this "
            f'project; add {option}=IMAGE, the worker image of `make images`, or see docs/scale.md for other ways.'
        )


def complete_options(args: Sequence[str]) -> list[str]:
    """Adds to Beam's options what every engine needs.

    - A runner, because Beam's default may hand the job to Prism, which downloads a binary.
    - The modules that a worker imports first, see `_WORKER_PLUGIN`.
    - The name of an image, where no option says how workers get their packages. TFX packs its own source for them
      otherwise, which takes 2 s a component and leaves copies in the temp folder. Only Dataflow, for which
      `check_engine` asks for a real one, starts this image.

    Args:
      args: the user's options, which are kept.
    """
    options = _parse(args)
    added = [f'--beam_plugins={_WORKER_PLUGIN}']
    if not options.runner:
        added.append('--runner=FnApiRunner')
    if not any(getattr(options, name) for name in _PACKAGES):
        added.append('--sdk_container_image=unused')
    return [*args, *(option for option in added if option not in args)]


def explain_worker_failure(error: BaseException, args: Sequence[str]) -> PipelineError | None:
    """Says in a sentence what is wrong with the workers of an engine on other machines.

    Args:
      error: what Beam raised, with the worker's own error in its text or the text of its causes.
      args: Beam's options.

    Returns:
      What to raise in place of the error; None if it says nothing about the workers, or these are in this process.
    """
    engine = find_engine(args)
    if not engine.is_remote:
        return None
    text = ''.join(traceback.format_exception(error))
    if _NO_PLUGIN.search(text):
        return PipelineError(
            f"The workers of {engine.runner} were not told Beam's options, so they did not import TFX: start their "
            "pool with Beam's boot, as the worker image does, and not with worker_pool_main alone; see docs/scale.md."
        )
    missing = _NO_FOLDER.search(text)
    if missing and _IN_A_WORKER in text:
        return PipelineError(
            f'A worker of {engine.runner} cannot use {missing[1] or "a file of the run"}: every worker must see the '
            'data and the root of the run in a folder that it shares with this machine, under the same path; see '
            'docs/scale.md.'
        )
    return None
