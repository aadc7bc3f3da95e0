"""The reliability campaign: kills runs at seeded moments, resumes them, and compares with a run that was not killed.

    python -m tests.campaign [--kills N] [--seed S] [--out DIR] [--faults]

`make campaign` runs all of it: 20 kills, then the faults of storage (tests/campaign_faults.py). The lines of the
reference run say which components there are. tests/test_campaign.py runs three of the kills.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from components.environment import choose_variables

os.environ.update(choose_variables())
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')

from pipeline.config import Layout
from tests import campaign_checks
from tests.campaign_faults import FAULTS, SkippedError
from tests.campaign_runs import Run, Step, follow, run, start

_TOO_LATE = 'nothing, it came too late'


class Moment(NamedTuple):
    """When to kill a run."""

    step: str
    fraction: float | None
    """The share of the step's time that has passed; None for as soon as a version is in the serving folder."""

    def __str__(self) -> str:
        return f'{self.step} ' + ('once pushed' if self.fraction is None else f'at {self.fraction:.2f}')


def choose_moments(steps: list[Step], kills: int, seed: int) -> list[Moment]:
    """Chooses moments in every step, with several in the longest ones.

    Every fifth moment is between two steps, and the last one is just after a push.

    Args:
      steps: those of the reference, without the imports.
      kills: how many moments to choose.
      seed: seed of the choice.
    """
    chance = random.Random(seed)
    names = [step.name for step in steps]
    longest = [step.name for step in sorted(steps, key=lambda step: -step.seconds)]
    chance.shuffle(names)
    chosen = [*names, *longest * kills][: kills - 1]
    moments = [
        Moment(name, 0.0 if number % 5 == 4 else round(chance.random(), 2)) for number, name in enumerate(chosen)
    ]
    return [*moments, Moment(steps[-1].name, None)]


def kill(root: Path, moment: Moment, reference: Run) -> str:
    """Starts a run and kills it with its children; returns the step it was in, or _TOO_LATE if it had ended."""
    steps = reference.steps
    position = [step.name for step in steps].index(moment.step)
    with start(root) as process:
        lines = follow(process)
        finished = [next(lines).name for _ in steps[:position]]
        if moment.fraction is None:
            while not campaign_checks.list_versions(Layout(str(root))) and process.poll() is None:
                time.sleep(0.0005)
        else:
            time.sleep(moment.fraction * steps[position].seconds)
        os.killpg(process.pid, signal.SIGKILL)
        finished += [step.name for step in lines if isinstance(step, Step)]
    return steps[len(finished)].name if len(finished) < len(steps) else _TOO_LATE


def find_faults(resumed: Run, reference: Run) -> list[str]:
    """Returns what is wrong with a resumed run; nothing if it is as if it had never been killed."""
    if resumed.exit_code:
        return [f'exit code {resumed.exit_code}: {resumed.error.strip()}']
    faults = []
    if [step.name for step in resumed.steps] != [step.name for step in reference.steps]:
        faults.append(f'different components: {", ".join(step.name for step in resumed.steps)}')
    if resumed.verdict != reference.verdict:
        faults.append(f'a different verdict: {resumed.verdict}')
    return [
        *faults,
        *campaign_checks.find_metadata_faults(resumed.layout),
        *campaign_checks.find_orphans(resumed.layout),
        *campaign_checks.find_model_faults(resumed.layout, reference.layout),
    ]


def kill_and_resume(out: Path, moment: Moment, reference: Run) -> tuple[str, list[str]]:
    """Kills a run and resumes it; returns a line on what happened, and what is wrong with the resumed run."""
    root = Path(tempfile.mkdtemp(dir=out)) / 'root'
    begin = time.monotonic()
    place = kill(root, moment, reference)
    if place == _TOO_LATE and moment.fraction:  # a short step took less time than in the reference
        shutil.rmtree(root.parent)
        return kill_and_resume(out, moment._replace(fraction=0.0), reference)
    resumed = run(root)
    faults = find_faults(resumed, reference)
    outcome = f'wrong: {"; ".join(faults)} (kept in {root})' if faults else 'ok'
    if not faults:
        shutil.rmtree(root.parent)
    seconds, reused = time.monotonic() - begin, resumed.count_reused()
    return f'{moment!s:<26} killed in {place:<17} {reused:>2} reused  {seconds:4.0f} s  {outcome}', faults


def run_kills(out: Path, kills: int, seed: int, reference: Run) -> bool:
    """Does the kills, prints a line for each, and returns whether all went well."""
    good = 0
    for number, moment in enumerate(choose_moments(reference.steps[1:], kills, seed), start=1):
        line, faults = kill_and_resume(out, moment, reference)
        good += not faults
        print(f'{number:>3}  {line}', flush=True)
    print(f'{good} of {kills} kills ended in a resumed, correct run', flush=True)
    return good == kills


def run_faults(out: Path, reference: Run) -> bool:
    """Causes the faults of storage, prints a line for each, and returns whether all went well."""
    outcomes = []
    for cause in FAULTS:
        begin = time.monotonic()
        folder = out / cause.__name__
        try:
            faults = cause(folder, reference)
            outcomes.append(not faults)
            outcome = f'wrong: {"; ".join(faults)}' if faults else 'ok'
        except SkippedError as error:
            outcome = f'skipped: {error}'
        print(f'{cause.__name__:<28} {time.monotonic() - begin:4.0f} s  {outcome}', flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(f'{sum(outcomes)} of {len(outcomes)} faults ended in a clear error and a run that works again', flush=True)
    return all(outcomes)


def main() -> int:
    """Runs the campaign; returns 0 if everything went well, else 1."""
    parser = argparse.ArgumentParser(prog='python -m tests.campaign', description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20, help='how many runs to kill; default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='seed of the moments; default: %(default)s')
    parser.add_argument('--out', metavar='DIR', type=Path, help='folder for the runs; default: a temporary one')
    parser.add_argument('--faults', action='store_true', help='cause the faults of storage too')
    arguments = parser.parse_args()
    out = (arguments.out or Path(tempfile.mkdtemp(prefix='campaign-'))).absolute()
    reference = run(out / 'reference' / 'root')
    if reference.exit_code:
        print(f'the reference run failed: {reference.error}')
        return 1
    print('reference: ' + ', '.join(f'{step.name} {step.seconds:.2f} s' for step in reference.steps), flush=True)
    is_good = run_kills(out, arguments.kills, arguments.seed, reference) if arguments.kills else True
    if arguments.faults:
        is_good &= run_faults(out, reference)
    return 0 if is_good else 1


if __name__ == '__main__':
    sys.exit(main())
