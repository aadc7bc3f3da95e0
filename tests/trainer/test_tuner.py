"""The search: what its trials share, what a killed search leaves to the next attempt, and what it writes."""

import contextlib
import dataclasses
import json
import logging
import types
from pathlib import Path

import keras
import pytest

from components.errors import StorageError, TrainingError
from components.hyperparameters import TRIALS_FILE
from components.progress import listen
from tests.conftest import IMAGE_SIZE
from trainer import frozen_pass, tuner
from trainer.cluster import join_cluster
from trainer.config import TrainerConfig, TunerConfig
from trainer.dataset import read_split
from trainer.device import use_device
from trainer.fit import DivergedError
from trainer.model import build_backbone, build_model
from trainer.train import train_model
from trainer.trials import Data, TrialTrainer
from trainer.tuner import FeatureTuner, tuner_fn

CONFIG = TrainerConfig(
    image_size=IMAGE_SIZE,
    weights='none',
    train_from='none',
    pooling='average',
    head_units=(),
    learning_rate=1e-2,
    optimizer='adam',
    epochs=2,
    precision='float32',
)


class FakeTrainer:
    """Takes the place of TrialTrainer: it knows the accuracies of the trials, and who has trained."""

    accuracies: tuple[float | Exception, ...] = (0.5, 0.7, 0.6, 0.7)

    def __init__(self, trained: list[str]):
        self.trained, self.frozen = trained, types.SimpleNamespace(seconds=7.0)

    def train(self, name: str, settings: dict) -> list[dict]:
        self.trained.append(name)
        accuracy = self.accuracies[int(name.split('-')[1]) - 1]
        if isinstance(accuracy, BaseException):
            raise accuracy
        return [{'val_accuracy': accuracy, 'val_loss': 1.0, 'epoch': 1}]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Runs a search with a fake trainer, each time in a new run folder; returns it with the trials that it trained."""

    def run(trials: int, accuracies=FakeTrainer.accuracies, seed: int = 0, attempt: int = 1):
        trained: list[str] = []
        monkeypatch.setattr(FakeTrainer, 'accuracies', accuracies)
        monkeypatch.setattr(tuner, 'TrialTrainer', lambda *arguments: FakeTrainer(trained))
        run_dir = tmp_path / f'run-{attempt}'
        run_dir.mkdir()
        made = FeatureTuner(CONFIG, TunerConfig(trials=trials, seed=seed), None, str(tmp_path / 'kept'), str(run_dir))
        (tmp_path / 'kept').mkdir(exist_ok=True)
        with contextlib.suppress(KeyboardInterrupt):
            made.search()
        return made, [int(name.split('-')[1]) for name in trained], run_dir

    return run


def read_trials(run_dir: Path) -> dict:
    return json.loads((run_dir / TRIALS_FILE).read_text())


def test_the_trials_are_written_the_best_first_and_the_first_has_the_configured_values(search):
    made, trained, run_dir = search(4)
    assert trained == [1, 2, 3, 4]
    written = read_trials(run_dir)
    assert [(trial['trial'], trial['val_accuracy']) for trial in written['trials']] == [
        (2, 0.7),
        (4, 0.7),
        (3, 0.6),
        (1, 0.5),
    ]
    assert written['frozen_pass_s'] == 7.0, 'counted once'
    configured = written['trials'][-1]['hyperparameters']
    assert configured.items() <= {**dataclasses.asdict(CONFIG), 'head_units': []}.items()
    best = made.get_best_hyperparameters()[0].values
    assert best['learning_rate'] == written['trials'][0]['hyperparameters']['learning_rate']


def test_the_same_seed_draws_the_same_values_and_another_one_others(search):
    values = []
    for attempt, seed in enumerate((0, 0, 1)):
        made, *_ = search(3, seed=seed, attempt=attempt)
        values.append([trial.hyperparameters.values for trial in made.oracle.trials.values()])
    assert values[0] == values[1]
    assert values[0][0] == values[2][0], 'the first one is the configured one'
    assert values[0][1:] != values[2][1:]


def test_a_killed_search_goes_on_with_the_trial_that_it_was_killed_in(search):
    _, trained, run_dir = search(4, accuracies=(0.5, 0.7, KeyboardInterrupt()))
    assert trained == [1, 2, 3]
    assert not (run_dir / TRIALS_FILE).exists()
    _, trained, run_dir = search(4, attempt=2)
    assert trained == [3, 4]
    assert [trial['trial'] for trial in read_trials(run_dir)['trials']] == [2, 4, 3, 1]


def test_more_trials_go_on_from_fewer(search):
    search(2)
    _, trained, run_dir = search(4, attempt=2)
    assert trained == [3, 4]
    assert len(read_trials(run_dir)['trials']) == 4


def test_a_trial_that_diverges_is_the_last_in_the_table_and_is_not_chosen(search):
    made, _, run_dir = search(3, accuracies=(DivergedError('The loss became NaN.'), 0.2, 0.1))
    last = read_trials(run_dir)['trials'][-1]
    assert (last['trial'], last['val_accuracy'], last['error']) == (1, None, 'The loss became NaN.')
    assert made.oracle.get_best_trials()[0].score == 0.2


def test_a_search_whose_trials_all_diverge_fails_with_a_sentence(search):
    with pytest.raises(TrainingError, match=r'^No trial of 2 was trained to its end\. The loss became NaN\.$'):
        search(2, accuracies=(DivergedError('The loss became NaN.'),) * 2)


def test_any_other_error_ends_the_search_and_stays_what_it_was(search):
    with pytest.raises(StorageError, match=r'^The disk is full\.$'):
        search(3, accuracies=(0.5, StorageError('The disk is full.')))


def test_each_trial_gets_a_line_and_the_trials_are_counted(search, caplog):
    heard = []
    with caplog.at_level(logging.INFO, 'trainer'), listen(heard.append):
        search(2)
    configured, _ = (message for message in caplog.messages if message.startswith('trial '))
    assert configured.startswith('trial 1 of 2: val_accuracy 0.500 in ')
    assert 'optimizer=adam, learning_rate=0.01, batch_size=32, head_units=[]' in configured
    assert [(each.done, each.total) for each in heard if each.what == 'trials'] == [(0, 2), (1, 2), (2, 2), (2, 2)]


def call_tuner_fn(config: TrainerConfig, trials: int, sample_data, transform_graph, root: Path) -> Path:
    """Calls tuner_fn and runs the search as TFX does; returns the folder of the artifact tuner_results."""
    run_dir = root / 'Tuner' / 'tuner_results' / '1'
    run_dir.mkdir(parents=True)
    made, options = tuner_fn(
        types.SimpleNamespace(
            custom_config={'trainer': dataclasses.asdict(config), 'tuner': {'trials': trials, 'seed': 0}},
            transform_graph_path=str(transform_graph),
            schema_path=str(transform_graph / 'metadata' / 'schema.pbtxt'),
            train_files=[str(sample_data / 'train' / '*')],
            eval_files=[str(sample_data / 'val' / '*')],
            working_dir=str(run_dir),
        )
    )
    made.search(**options)
    return run_dir


@pytest.mark.slow
def test_trials_share_one_frozen_pass_and_train_as_the_trainer_does(
    sample_data, transform_graph, tmp_path, monkeypatch, caplog
):
    passes, prepare_rows = [], frozen_pass.prepare_rows

    @contextlib.contextmanager
    def count(*arguments, **options):
        with prepare_rows(*arguments, **options) as rows:
            yield rows._replace(fill=lambda: (passes.append(rows.cache), rows.fill()))

    monkeypatch.setattr(frozen_pass, 'prepare_rows', count)
    with caplog.at_level(logging.INFO, 'trainer'):
        run_dir = call_tuner_fn(CONFIG, 3, sample_data, transform_graph, tmp_path)
    written = read_trials(run_dir)
    assert passes == ['memory']
    assert 0 < written['frozen_pass_s'] < written['seconds']
    assert {trial['trial'] for trial in written['trials']} == {1, 2, 3}
    (kept,) = (tmp_path / 'Tuner' / 'checkpoints').iterdir()
    assert len(list(kept.iterdir())) == len(list(kept.glob('trial-*.json'))) == 3, 'no checkpoint is left'
    assert not [message for message in caplog.messages if 'epoch' in message]
    assert len([message for message in caplog.messages if message.startswith('frozen layers took')]) == 1


@pytest.mark.slow
def test_a_trial_trains_as_the_trainer_does_whatever_was_trained_before_it(sample_data, transform_output, tmp_path):
    config = dataclasses.replace(CONFIG, train_from='conv5_block3', epochs=1)
    splits = [read_split([str(sample_data / name / '*')], transform_output) for name in ('train', 'val')]
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(use_device('float32'))
        trainer = TrialTrainer(config, Data(*splits, 10), device, str(tmp_path / 'kept'), str(tmp_path), stack)
        losses = [trainer.train(name, {})[0]['loss'] for name in ('first', 'second')]
        keras.utils.set_random_seed(config.seed)  # as trainer.train.run_fn does
        backbone = build_backbone(config)
        model = build_model(config, backbone, 10)
        folders = {'checkpoint_dir': str(tmp_path / 'alone'), 'run_dir': str(tmp_path)}
        history, _ = train_model(model, backbone, config, device, join_cluster('one'), *splits, **folders)
    assert losses == pytest.approx([history[0]['loss']] * 2, rel=1e-4)
