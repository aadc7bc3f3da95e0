"""tuner_fn, which TFX's Tuner calls: a search for hyper-parameters whose trials share the frozen pass.

Of KerasTuner only the search space, the oracle that chooses values, and the loop over trials are used. Its own training
and its own files are not: a trial is trained as the Trainer trains, and its result is written by us, whole or not at
all, to a place that may be an object store. The oracle draws the same values again for the same seed, so a search that
was killed repeats its trials from their files, and goes on with the first one that has none.
"""

import contextlib
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
import tensorflow_transform as tft
from keras_tuner.engine import base_tuner, trial as trial_module
from keras_tuner.errors import FailedTrialError, FatalError
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from components.contract_schema import load_contract
from components.errors import TrainingError
from components.hyperparameters import TRIALS_FILE, decode_hyperparameters, describe_hyperparameters
from components.places import explain_errors, locate, write_place
from components.progress import track
from components.source_digest import compute_source_digest
from components.staging import write_text
from trainer.checkpoint import compute_training_key, locate_checkpoints
from trainer.config import TrainerConfig, TunerConfig
from trainer.dataset import read_split
from trainer.device import use_device
from trainer.fit import DivergedError, find_best_epoch
from trainer.search_space import list_configured, make_search_space
from trainer.trials import Data, TrialTrainer

OBJECTIVE = 'val_accuracy'
_log = logging.getLogger('trainer')


class TrialResult(NamedTuple):
    """What came of a trial."""

    trial: int
    """Its number, from 1. The first one has the values of the configuration."""
    hyperparameters: dict[str, Any]
    """Its values by the name of the setting."""
    val_accuracy: float | None
    """Accuracy on the val split after its best epoch, 0-1; None if its loss became NaN or infinite."""
    best_epoch: int | None
    """The epoch, from 1, with this accuracy."""
    seconds: float
    """How long it took, without the frozen pass."""
    error: str = ''
    """Why it has no accuracy."""


class Search(NamedTuple):
    """What came of a search; written as JSON into the artifact `tuner_results`."""

    trials: list[dict[str, Any]]
    """Every trial as a TrialResult, the best first."""
    frozen_pass_s: float
    """Seconds that the one frozen pass took; 0 if every trial was finished by an earlier attempt."""
    seconds: float
    """Seconds of the search, the frozen pass included; of its last attempt, if it was killed."""


class _Oracle(keras_tuner.oracles.RandomSearchOracle):
    """Draws values at random, but for the first trial, which gets those of the configuration."""

    def __init__(self, first: dict[str, Any], **options: Any):
        super().__init__(**options)
        self._first = first

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if not self.trials:
            return {'status': trial_module.TrialStatus.RUNNING, 'values': dict(self._first)}
        response: dict[str, Any] = super().populate_space(trial_id)
        return response


@contextlib.contextmanager
def _leave_out_epochs() -> Iterator[None]:
    """Keeps what is logged of each epoch out of the log, where each trial gets a line."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.module != 'fit'

    _log.addFilter(is_wanted)
    try:
        yield
    finally:
        _log.removeFilter(is_wanted)


class FeatureTuner(base_tuner.BaseTuner):
    """The loop over the trials. A trial that an earlier attempt has finished is not trained again.

    Args:
      config: The configuration whose fields the hyper-parameters replace.
      tuner: How many trials there are, and the seed of their values.
      data: What to train on.
      checkpoint_dir: Folder of the finished trials and of checkpoints, a path or a URI, the same for every attempt.
      run_dir: Local folder of the artifact `tuner_results`.
    """

    def __init__(self, config: TrainerConfig, tuner: TunerConfig, data: Data, checkpoint_dir: str, run_dir: str):
        oracle = _Oracle(
            list_configured(config),
            objective=keras_tuner.Objective(OBJECTIVE, 'max'),
            max_trials=tuner.trials,
            seed=tuner.seed + 1,  # 0 stands for a random seed there
            hyperparameters=make_search_space(),
            max_consecutive_failed_trials=tuner.trials + 1,
        )
        oracle.verbose = 0
        super().__init__(oracle, directory=run_dir, project_name='keras_tuner', overwrite=True)
        self._config, self._data = config, data
        self._count, self._checkpoint_dir, self._run_dir = tuner.trials, checkpoint_dir, run_dir
        self._results: list[TrialResult] = []
        self._frozen_pass_s = 0.0
        self._advance: Callable[[int], None] = lambda trials: None
        self._get_trainer: Callable[[], TrialTrainer]

    def search(self, **options: Any) -> None:
        """Runs all trials, and writes TRIALS_FILE.

        Raises:
          TrainingError: The loss of every trial became NaN or infinite.
        """
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            device = stack.enter_context(use_device(self._config.precision))
            stack.enter_context(_leave_out_epochs())
            self._advance = stack.enter_context(track('trials', self._count, 'trials'))
            folders = self._checkpoint_dir, self._run_dir
            self._get_trainer = functools.cache(
                functools.partial(TrialTrainer, self._config, self._data, device, *folders, stack)
            )
            try:
                super().search()
            except FatalError as error:
                raise (error.__cause__ or error) from None
        if all(result.val_accuracy is None for result in self._results):
            raise TrainingError(f'No trial of {len(self._results)} was trained to its end. {self._results[-1].error}')
        ordered = sorted(self._results, key=lambda result: 1 if result.val_accuracy is None else -result.val_accuracy)
        written = Search([result._asdict() for result in ordered], self._frozen_pass_s, time.monotonic() - begin)
        write_text(Path(self._run_dir, TRIALS_FILE), json.dumps(written._asdict(), indent=2))

    def run_trial(self, trial: trial_module.Trial, **options: Any) -> dict[str, float]:
        """Trains a trial, or takes its result from an earlier attempt.

        Raises:
          FailedTrialError: Its loss became NaN or infinite.
          FatalError: For any other error, which is its cause, because KerasTuner would go on with the next trial.
        """
        settings = decode_hyperparameters({'values': trial.hyperparameters.values})
        try:
            result = self._find_or_train(int(trial.trial_id) + 1, settings)
        except Exception as error:
            raise FatalError from error
        self._results.append(result)
        self._advance(1)
        if result.val_accuracy is None:
            raise FailedTrialError(result.error)
        return {OBJECTIVE: result.val_accuracy}

    def _find_or_train(self, number: int, settings: dict[str, Any]) -> TrialResult:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        name = f'trial-{number:03d}-{digest}'
        file = locate(self._checkpoint_dir) / f'{name}.json'
        with explain_errors(file):
            if file.exists():
                result = TrialResult(**json.loads(file.read_text()))
                self._tell(result, 'earlier')
                return result
        result = self._train(number, name, settings)
        with explain_errors(file):
            write_place(file, json.dumps(result._asdict()))
        self._tell(result, f'in {result.seconds:.1f} s')
        return result

    def _train(self, number: int, name: str, settings: dict[str, Any]) -> TrialResult:
        trainer, begin = self._get_trainer(), time.monotonic()
        accuracy = epoch = None
        message = ''
        try:
            best = find_best_epoch(trainer.train(name, settings))
            accuracy, epoch = best['val_accuracy'], best['epoch']
        except DivergedError as error:
            message = str(error)
        passed, self._frozen_pass_s = trainer.frozen.seconds - self._frozen_pass_s, trainer.frozen.seconds
        return TrialResult(number, settings, accuracy, epoch, time.monotonic() - begin - passed, message)

    def _tell(self, result: TrialResult, when: str) -> None:
        outcome = 'diverged' if result.val_accuracy is None else f'{OBJECTIVE} {result.val_accuracy:.3f}'
        described = describe_hyperparameters(result.hyperparameters)
        _log.info('trial %d of %d: %s %s, %s', result.trial, self._count, outcome, when, described)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Makes the search.

    Args:
      fn_args: The arguments from TFX. Its `custom_config` holds a TrainerConfig ('trainer') and a TunerConfig ('tuner')
        as dicts; its `working_dir` is the folder of the artifact `tuner_results`.
    """
    config = TrainerConfig(**fn_args.custom_config['trainer'])
    tuner = TunerConfig(**fn_args.custom_config['tuner'])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    data = Data(
        read_split(fn_args.train_files, transform_output, config.augmentation, config.seed),
        read_split(fn_args.eval_files, transform_output),
        load_contract(fn_args.schema_path).num_classes,
    )
    settings = {name: value for name, value in fn_args.custom_config['trainer'].items() if name != 'checkpoint_dir'}
    # The number of trials is left out, so that more of them go on from these.
    described = {'trainer': settings, 'seed': tuner.seed, 'source_digest': compute_source_digest([__name__])}
    key = compute_training_key(described, [*fn_args.train_files, *fn_args.eval_files], fn_args.transform_graph_path)
    checkpoint_dir = locate_checkpoints(fn_args.working_dir, key, config.checkpoint_dir)
    return TunerFnResult(FeatureTuner(config, tuner, data, checkpoint_dir, fn_args.working_dir), {})
