"""Trains the jobs of one group in a process of its own, with the trainer's own code, and writes their results.

The jobs share the frozen pass, which takes most of the time: `prepare_rows` caches the outputs of the frozen layers
once, and each job trains the layers above on them with `train_model`, as a run of the pipeline does. The test split
gets a pass of its own, in the arithmetic of the exported model.
"""

import argparse
import contextlib
import datetime
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tfx  # noqa: F401  (first, because TFX provides a module that TFMA needs)

from benchmarks import harness
from benchmarks.ladder.results import Result, write_result
from benchmarks.ladder.rows import Job, find_rows
from benchmarks.models import write_transform_graph
from components import features
from components.data import cifar10
from components.progress import track
from components.source_digest import compute_source_digest
from trainer.calibration import measure_calibration_error, scale_temperature
from trainer.checkpoint import History, compute_training_key
from trainer.cluster import join_cluster
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, Split, make_batches, read_split
from trainer.device import use_device
from trainer.fit import find_best_epoch
from trainer.frozen_pass import FrozenPass
from trainer.inference_graph import InferenceGraph
from trainer.model import build_backbone, build_model, split_at_border
from trainer.train import train_model
from trainer.training_rows import TRUNK_BATCH
from trainer.weights import load_weights


class Task(NamedTuple):
    """What all jobs of the process have in common.

    data: Folder of TFRecords in train/, val/ and test/.
    weights: The weights file of each backbone.
    out: Folder of the results.
    limit: Images of each split to use; None means all.
    """

    data: Path
    weights: dict[str, str]
    out: Path
    limit: int | None


class SharedTest:
    """The test split, and what the frozen layers make of it in the arithmetic of the exported model.

    Args:
      split: The test split; its rows are preprocessed images.
      is_shared: Whether several models with the same frozen layers are going to be measured, so that the outputs of
        these layers are worth keeping.
    """

    def __init__(self, split: Split, *, is_shared: bool):
        self.split = split
        self._is_shared = is_shared
        self._outputs: npt.NDArray[np.float32] | None = None

    def predict(self, model: keras.Model) -> npt.NDArray[np.float32]:
        """Returns the probabilities, float32 [N, 10], as the exported float32 graph computes them."""
        with use_device('float32'):
            trunk, top = split_at_border(model) if self._is_shared else (None, model)
            if trunk is None:
                return self._run(InferenceGraph(model), self._read_images())
            if self._outputs is None:
                self._outputs = self._run(InferenceGraph(trunk), self._read_images())
            rows = range(0, len(self._outputs), TRUNK_BATCH)
            return self._run(InferenceGraph(top), (self._outputs[row : row + TRUNK_BATCH] for row in rows))

    def _read_images(self) -> Iterator[tf.Tensor]:
        batches = make_batches(self.split, EpochOrder(self.split.count, None), TRUNK_BATCH)
        return (images for images, _ in batches)

    def _run(self, graph: InferenceGraph, batches: Iterable[Any]) -> npt.NDArray[np.float32]:
        outputs = []
        with track('test split', self.split.count) as advance:
            for batch in batches:
                outputs.append(graph(batch).numpy())
                advance(len(batch))
        return np.concatenate(outputs)


def _take_rows(split: Split, count: int | None) -> Split:
    """Returns the first rows of a split."""
    return split if count is None else replace(split, encoded=split.encoded[:count], labels=split.labels[:count])


def build_network(config: TrainerConfig) -> tuple[keras.Model, keras.Model]:
    """Builds the network and its backbone with the weights that a run of the pipeline begins with."""
    keras.utils.set_random_seed(config.seed)
    backbone = build_backbone(config)
    load_weights(backbone, config)
    return build_model(config, backbone, cifar10.CONTRACT.num_classes), backbone


def describe_start(backbone: keras.Model, config: TrainerConfig) -> str:
    """Says where a backbone's weights come from, before it is trained.

    A weights file may hold only some of the stages. The others are recognized by their BatchNorms, whose moving means
    are all zero as long as nothing was trained.
    """
    if config.weights == 'none':
        return 'random'
    is_new: dict[str, bool] = {}
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            stage = layer.name.split('_')[0]
            is_new[stage] = is_new.get(stage, True) and not np.any(keras.ops.convert_to_numpy(layer.moving_mean))
    new = [stage for stage, value in is_new.items() if value]
    return f'ImageNet, {", ".join(new)} random' if new else 'ImageNet'


def read_splits(job: Job, task: Task) -> dict[str, Split]:
    """Reads the splits, by name; their rows are preprocessed images."""
    config = job.make_config(task.weights).trainer
    splits = {}
    with tempfile.TemporaryDirectory() as folder:
        transform_output = write_transform_graph(
            folder, config.get_image_size(), backbone=config.backbone, resize=config.resize
        )
        for name in features.SPLITS:
            augmentation = config.augmentation if name == features.TRAIN_SPLIT else 'none'
            read = read_split([str(task.data / name / '*')], transform_output, augmentation, config.seed)
            splits[name] = _take_rows(read, task.limit)
    return splits


def _locate_work(job: Job, task: Task) -> Path:
    """Returns the folder of a job's checkpoints, with which a killed training goes on after its last epoch."""
    return task.out / 'work' / f'{job.row.name}-seed{job.seed}'


def _choose_key(job: Job, task: Task) -> str:
    """Returns a key that is the same only for trainings that may continue from each other's checkpoints."""
    settings = {
        'settings': job.make_config(task.weights).to_json(),
        'limit': task.limit,
        'source_digest': compute_source_digest(['trainer.train']),
    }
    return compute_training_key(settings, [str(task.data / '*' / '*')], '')


class Trained(NamedTuple):
    """A trained model, and how it came about.

    history: Its epochs.
    precision: The arithmetic of the training.
    machine: The CPU or GPU that trained.
    start: Where the backbone's weights came from.
    """

    model: keras.Model
    history: History
    precision: str
    machine: str
    start: str


def train_job(job: Job, task: Task, splits: dict[str, Split], frozen: FrozenPass) -> Trained:
    """Trains a job as a run of the pipeline does; a killed training goes on after its last complete epoch."""
    config, folder = job.make_config(task.weights).trainer, _locate_work(job, task)
    train, val, _ = splits.values()
    with use_device(config.precision) as device:
        model, backbone = build_network(config)
        start = describe_start(backbone, config)
        history, _ = train_model(
            *(model, backbone, config, device, join_cluster('one'), train, val),
            checkpoint_dir=str(folder / _choose_key(job, task)),
            run_dir=str(folder),
            prepare=frozen.prepare,
        )
        if config.calibration == 'temperature':
            scale_temperature(model, val)
    machine = device.name if device.is_gpu else harness.describe_machine()
    return Trained(model, history, device.precision, machine, start)


def measure_job(job: Job, task: Task, splits: dict[str, Split], frozen: FrozenPass, test: SharedTest) -> Result:
    """Trains a job, measures it on the test split, and writes the result."""
    model, history, precision, machine, start = train_job(job, task, splits, frozen)
    probabilities, labels = test.predict(model), test.split.labels
    weights = task.weights.get(job.make_config({}).trainer.backbone)
    result = Result(
        row=job.row.name,
        settings=job.row.settings,
        seed=job.seed,
        images={name: split.count for name, split in splits.items()},
        start=start,
        weights_file=Path(weights).name if weights and start != 'random' else None,
        epochs=len(history),
        pass_s=frozen.seconds,
        training_s=sum(entry['seconds'] for entry in history),
        val_accuracy=find_best_epoch(history)['val_accuracy'],
        test_right=int(np.sum(probabilities.argmax(axis=1) == labels)),
        calibration_error=measure_calibration_error(probabilities, labels),
        precision=precision,
        machine=machine,
        date=datetime.date.today().isoformat(),
    )
    write_result(task.out, job, result)
    shutil.rmtree(_locate_work(job, task))
    return result


def measure_jobs(jobs: list[Job], task: Task, terminal: TextIO) -> None:
    """Measures the jobs of a group, and prints a line for each."""
    if jobs[0].row.needs_bfloat16:
        with use_device('auto') as device:
            if device.precision == 'float32':
                print('  skipped: this machine has no bfloat16, so there is nothing to compare', file=terminal)
                return
    splits = read_splits(jobs[0], task)
    with contextlib.ExitStack() as stack:
        frozen, test = FrozenPass(stack), SharedTest(splits[features.TEST_SPLIT], is_shared=len(jobs) > 1)
        for job in jobs:
            result = measure_job(job, task, splits, frozen, test)
            print(
                f'  {job.row.name}, seed {job.seed}: val {result.val_accuracy:.3f}, test {result.test_accuracy:.3f}, '
                f'{result.pass_s:.0f} + {result.training_s:.0f} s',
                file=terminal,
            )


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, which benchmarks.ladder writes."""
    parser = argparse.ArgumentParser(description='One group of trainings of the ladder; see benchmarks.ladder.')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--weights', type=json.loads, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--limit', type=int)
    parser.add_argument('jobs', nargs='+', metavar='ROW:SEED')
    return parser.parse_args()


def main() -> None:
    """Runs the command line. Standard output has a line for each training; the libraries write to standard error."""
    arguments = parse_arguments()
    jobs = []
    for text in arguments.jobs:
        name, _, seed = text.rpartition(':')
        (row,) = find_rows([name])
        jobs.append(Job(row, int(seed)))
    task = Task(arguments.data, arguments.weights, arguments.out, arguments.limit)
    with os.fdopen(os.dup(1), 'w', buffering=1) as terminal, harness.divert_stdout():
        handler = logging.StreamHandler(terminal)
        handler.setFormatter(logging.Formatter('    %(message)s'))
        for name in ('trainer', 'components.progress'):
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        measure_jobs(jobs, task, terminal)


if __name__ == '__main__':
    main()
