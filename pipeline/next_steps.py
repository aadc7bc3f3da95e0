"""What to do after a run: the commands that go on from it, with its own paths."""

import shlex
from collections.abc import Mapping

NEWCOMER = """\
What do you want to do?
  check machine   python -m pipeline doctor
  train a sample  python -m pipeline run
  classify        python -m pipeline predict --model runs/sample/serving IMAGE
  look at runs    python -m pipeline runs --root runs/sample
  use own images  python -m pipeline data --help

All commands: python -m pipeline --help"""
"""The five things that a newcomer wants."""


def make_command(*words: str) -> str:
    """Returns a command of this command line, as a shell takes it."""
    return shlex.join(['python', '-m', 'pipeline', *words])


def list_after_run(paths: Mapping[str, str], serving: str, root: str, *, is_pushed: bool) -> tuple[str, ...]:
    """Lists the commands that go on from a run that has ended, at most three.

    Args:
      paths: the run's closing paths by name.
      serving: its serving folder.
      root: its root.
      is_pushed: whether it pushed a model.
    """
    report = make_command('report', '--root', root, '--open')
    if not is_pushed:
        return (report,)
    version = paths['pushed'].rstrip('/').rpartition('/')[2]
    return (
        f'{make_command("predict", "--model", serving)} IMAGE',
        make_command('promote', version, '--serving', serving),
        report,
    )


def choose_after_failure(command: str, *, is_expected: bool) -> str:
    """Returns the command to try after a run that failed.

    Args:
      command: the one that failed.
      is_expected: whether the error says itself what to mend. Another one needs a look at what the libraries say.
    """
    if is_expected:
        return command
    words = [word for word in shlex.split(command) if word not in ('--quiet', '--json', '--verbose')]  # one of them
    return shlex.join([*words, '--verbose'])
