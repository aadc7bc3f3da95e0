"""run_fn, which TFX's Trainer calls: it loads the data, trains the model and exports it."""

import dataclasses
import json
import logging
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from components.contract import KERAS_MODEL_FILE, DataContract
from components.contract_schema import load_contract
from components.errors import TrainingError
from components.hyperparameters import decode_hyperparameters, describe_hyperparameters
from components.places import locate, write_place
from components.source_digest import compute_source_digest
from trainer import export
from trainer.averaging import choose_ema_momentum
from trainer.calibration import Calibration, scale_temperature
from trainer.checkpoint import History, compute_training_key, locate_checkpoints, remove_checkpoints
from trainer.cluster import Cluster, StrategyName, join_cluster
from trainer.config import ExportConfig, TrainerConfig
from trainer.dataset import EpochOrder, Split, list_batch_starts, make_batches, read_split
from trainer.device import Device, use_device
from trainer.fit import Phase, find_best_epoch, fit_phase, make_schedule
from trainer.model import (
    StageSize,
    build_backbone,
    build_model,
    choose_batchnorm_momentum,
    compile_model,
    freeze_below,
    measure_stages,
    set_batchnorm_momentum,
)
from trainer.onnx_export import export_onnx
from trainer.predictions import write_predictions
from trainer.rendezvous import read_workers
from trainer.served_model import MICRO_BATCH
from trainer.training_rows import TrainingRows, prepare_rows
from trainer.warm_start import find_base_model, load_base_model
from trainer.weights import load_weights

_log = logging.getLogger('trainer')

# Files in the model_run artifact.
REPORT_FILE = 'report.json'  # a `TrainingReport`
HISTORY_FILE = 'history.json'  # a `trainer.checkpoint.History`
KERAS_FILE = 'model.keras'  # the model of the best epoch, in Keras' format

FINISHED_FILE = 'finished'  # beside the checkpoints of a training that workers have ended
_ELSEWHERE = ('checkpoint_dir', 'join_timeout_s', 'strategy')  # settings without which a training is the same

STEPS_PER_EXECUTION = 16  # most steps between two returns to Python; a return takes as long as a small step
RETURNS_PER_EPOCH = 50  # at least, if there are as many steps; only then is it known how far the epoch has come


class TrainingReport(NamedTuple):
    """A summary of a training, written as JSON into the model_run artifact."""

    device: str
    """The names of the GPUs, or 'CPU (no GPU found)'."""
    precision: str
    """The precision that was used, see `trainer.device.Device`."""
    cache: str
    """Where the trunk's outputs were cached in the last phase: 'memory', 'disk' or 'off'."""
    images_per_s: float
    """Training images per second, the median over the epochs of the last phase. Validation and filling the cache are
    not counted."""
    epochs: int
    """Epochs of the last phase; fewer than configured when the training stopped early."""
    best_epoch: int
    """The epoch, from 1, whose weights were kept."""
    accuracy: float
    """Accuracy on the train split in the best epoch, with dropout, 0-1."""
    val_accuracy: float
    """Accuracy on the val split after the best epoch, 0-1."""
    temperature: float | None = None
    """The number that the logits were divided by, see `trainer.calibration`; None with trainer.calibration=none."""
    val_calibration_error_before: float | None = None
    """Expected calibration error on the val split before the division, 0-1; None with trainer.calibration=none."""
    val_calibration_error: float | None = None
    """The same after it. It flatters the model a little, because the temperature was fitted on these images."""
    hyperparameters: dict[str, Any] | None = None
    """The settings that the Tuner chose, by name; None without a Tuner."""
    stages: tuple[dict[str, Any], ...] = ()
    """The network's stages as `trainer.model.StageSize`: what was frozen and trained in the last phase."""
    base_version: str | None = None
    """The version whose weights the training began with; None if it began with `trainer.weights`."""


def list_phases(config: TrainerConfig) -> list[Phase]:
    """Returns the phases: first the head only, if `head_epochs` is set; then all layers from `train_from` on."""
    main = Phase('training', config.epochs, config.learning_rate)
    return [Phase('head', config.head_epochs, config.head_learning_rate), main] if config.head_epochs else [main]


def choose_steps_per_execution(steps: int) -> int:
    """Chooses how many steps run between two returns to Python.

    Args:
      steps: The steps of an epoch.
    """
    return max(1, min(STEPS_PER_EXECUTION, steps // RETURNS_PER_EPOCH))


def train_model(
    model: keras.Model,
    backbone: keras.Model,
    config: TrainerConfig,
    device: Device,
    cluster: Cluster,
    train: Split,
    val: Split,
    *,
    checkpoint_dir: str,
    run_dir: str,
    prepare: Callable[..., AbstractContextManager[TrainingRows]] = prepare_rows,
) -> tuple[History, str]:
    """Trains one phase after the other.

    The model is compiled again for each phase, because Keras ignores layers that are unfrozen after compiling.

    Args:
      model: A model from `build_model`; changed in place.
      backbone: The model's backbone, whose layers each phase freezes and unfreezes.
      config: The settings of the training.
      device, cluster: The devices that train.
      train, val: The splits to train and to validate on; their rows are preprocessed images.
      checkpoint_dir: Folder of the checkpoints, the same for every attempt at this training.
      run_dir: The run's folder, for TensorBoard's logs and a cache on disk.
      prepare: Prepares the rows of a phase; called as `prepare_rows` is, whose place something can take that shares the
        frozen pass between trainings.

    Returns:
      The history of all phases, and where the trunk's outputs were cached in the last one.
    """
    history: History = []
    for phase in list_phases(config):
        freeze_below(backbone, 'none' if phase.name == 'head' else config.get_train_from())
        with prepare(model, config, device, train, val, run_dir, cluster.share, epochs=phase.epochs) as rows:
            steps = len(list_batch_starts(train.count, config.batch_size, cluster.share.replicas))
            set_batchnorm_momentum(rows.model, choose_batchnorm_momentum(config, steps))
            with cluster.scope():
                fitted = cluster.adapt_model(rows.model)
                momentum = choose_ema_momentum(steps * phase.epochs) if config.weight_average == 'ema' else None
                compile_model(fitted, config, make_schedule(config, phase, steps), momentum)
            if not cluster.is_distributed:  # else batches have no end that would stop an execution in time
                fitted.steps_per_execution = choose_steps_per_execution(steps)
            history += fit_phase(
                fitted,
                config,
                phase,
                rows.train,
                rows.val,
                cluster=cluster,
                fill=rows.fill,
                checkpoint_dir=checkpoint_dir,
                log_dir=os.path.join(run_dir, phase.name),
            )
    return history, rows.cache


def make_report(
    device: Device,
    cache: str,
    history: History,
    calibration: Calibration | None = None,
    stages: Sequence[StageSize] = (),
    hyperparameters: dict[str, Any] | None = None,
    base_version: str | None = None,
) -> TrainingReport:
    """Summarizes the last phase of a training, what was done to the model after it, and what the Tuner chose."""
    last = [entry for entry in history if entry['phase'] == history[-1]['phase']]
    best = find_best_epoch(last)
    return TrainingReport(
        device=device.name,
        precision=device.precision,
        cache=cache,
        images_per_s=statistics.median(entry['images_per_s'] for entry in last),
        epochs=len(last),
        best_epoch=best['epoch'],
        accuracy=best['accuracy'],
        val_accuracy=best['val_accuracy'],
        temperature=calibration and calibration.temperature,
        val_calibration_error_before=calibration and calibration.error_before,
        val_calibration_error=calibration and calibration.error,
        hyperparameters=hyperparameters,
        stages=tuple(stage._asdict() for stage in stages),
        base_version=base_version,
    )


def _write_json(folder: str, name: str, content: object) -> None:
    with tf.io.gfile.GFile(os.path.join(folder, name), 'w') as file:
        json.dump(content, file, indent=2)


class _Trained(NamedTuple):
    """A training that has ended, on one device or several."""

    config: TrainerConfig
    """The settings, in which those that the Tuner chose take the place of others."""
    chosen: dict[str, Any] | None
    """What the Tuner chose; None without one."""
    model: keras.Model
    """With the weights of the best epoch."""
    cluster: Cluster
    device: Device
    history: History
    cache: str
    """Where the trunk's outputs were cached in the last phase."""
    val: Split
    contract: DataContract
    transform_output: tft.TFTransformOutput
    checkpoint_dir: str
    base_version: str | None


def _choose_strategy(config: TrainerConfig, checkpoint_dir: str) -> StrategyName | Literal['auto']:
    """Returns the setting `trainer.strategy`, but 'one' for a training that workers have ended: nothing is trained."""
    is_alone = read_workers(os.environ.get('TF_CONFIG', '')).count == 1
    return 'one' if is_alone and (locate(checkpoint_dir) / FINISHED_FILE).exists() else config.strategy


def _train(fn_args: FnArgs) -> _Trained:
    """Trains on `train`, and keeps the epoch that is best on `val`; see `run_fn` for the arguments."""
    chosen = decode_hyperparameters(fn_args.hyperparameters) if fn_args.hyperparameters else None
    config = TrainerConfig(**{**fn_args.custom_config['trainer'], **(chosen or {})})
    if chosen:
        _log.info('the Tuner chose %s', describe_hyperparameters(chosen))
    run_dir = fn_args.model_run_dir
    files = [*fn_args.train_files, *fn_args.eval_files]
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _ELSEWHERE}
    described = {**fn_args.custom_config, 'trainer': settings, 'source_digest': compute_source_digest([__name__])}
    base = find_base_model(fn_args.base_model)
    described['base_model'] = base and base.compute_digest()
    key = compute_training_key(described, files, fn_args.transform_graph_path)
    checkpoint_dir = locate_checkpoints(run_dir, key, config.checkpoint_dir)
    with use_device(config.precision) as device:
        cluster = join_cluster(_choose_strategy(config, checkpoint_dir), config.join_timeout_s)
        if config.weight_average != 'none' and cluster.share.workers > 1:
            raise TrainingError(
                f'trainer.weight_average={config.weight_average} works on one machine only, because BatchNorm '
                'statistics are estimated from the whole train split, and each of the '
                f'{cluster.share.workers} workers of TF_CONFIG reads its own share; set trainer.weight_average=none.'
            )
        contract = load_contract(fn_args.schema_path)
        transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
        train = read_split(fn_args.train_files, transform_output, config.augmentation, config.seed)
        val = read_split(fn_args.eval_files, transform_output)
        keras.utils.set_random_seed(config.seed)
        with cluster.scope():
            backbone = build_backbone(config)
            if base is None:
                load_weights(backbone, config)
            model = build_model(config, backbone, contract.num_classes)
            if base is not None:
                load_base_model(model, base, contract)
                _log.info('the training begins with the weights of version %s', base.version)
        history, cache = train_model(
            model, backbone, config, device, cluster, train, val, checkpoint_dir=checkpoint_dir, run_dir=run_dir
        )
    return _Trained(
        config=config,
        chosen=chosen,
        model=model,
        cluster=cluster,
        device=device,
        history=history,
        cache=cache,
        val=val,
        contract=contract,
        transform_output=transform_output,
        checkpoint_dir=checkpoint_dir,
        base_version=base and base.version,
    )


def _write_outputs(
    model: keras.Model, fn_args: FnArgs, export_config: ExportConfig, trained: _Trained, report: TrainingReport
) -> None:
    """Writes the Trainer's outputs: report, history, .keras file and predictions to model_run, and the SavedModel."""
    run_dir, saved_model, val = fn_args.model_run_dir, fn_args.serving_model_dir, trained.val
    _write_json(run_dir, REPORT_FILE, report._asdict())
    _write_json(run_dir, HISTORY_FILE, trained.history)
    model.save(os.path.join(run_dir, KERAS_FILE))
    write_predictions(model, val, run_dir)
    val_batches = make_batches(val, EpochOrder(val.count, None), MICRO_BATCH)
    export.export_model(model, trained.transform_output, saved_model, export_config, val_batches, trained.contract)
    if export_config.onnx:
        export_onnx(model, trained.config, export_config, trained.contract, val.encoded, saved_model)
    # A training that begins with this model, when it is a version, takes it from there.
    tf.io.gfile.copy(os.path.join(run_dir, KERAS_FILE), os.path.join(saved_model, KERAS_MODEL_FILE), overwrite=True)


def run_worker(fn_args: FnArgs) -> None:
    """Trains as one of the workers that TF_CONFIG lists, and leaves the result where `run_fn` takes it over.

    Every epoch is a checkpoint. So `run_fn`, with the same arguments and without TF_CONFIG, has nothing left to train:
    it exports the model.

    Args:
      fn_args: As for `run_fn`.
    """
    trained = _train(fn_args)
    if trained.cluster.is_chief:
        write_place(locate(trained.checkpoint_dir) / FINISHED_FILE, '')
    trained.cluster.wait_for_all()  # when one worker exits before the others, TensorFlow ends these too


def run_fn(fn_args: FnArgs) -> None:
    """Trains on `train`, keeps the epoch that is best on `val`, and exports it as a SavedModel and a .keras file.

    Args:
      fn_args: The arguments from TFX. Its `custom_config` holds a TrainerConfig ('trainer') and an ExportConfig
        ('export') as dicts; its `hyperparameters`, if there was a Tuner, take the place of settings of the former. Its
        `base_model`, if there is a warm start, is the folder of the SavedModel to begin with.
    """
    export_config = ExportConfig(**fn_args.custom_config['export'])
    export_config.check_packages()  # now, and not after the training
    trained = _train(fn_args)
    config, cluster, model = trained.config, trained.cluster, trained.model
    if cluster.is_chief:
        if cluster.is_distributed:  # what is exported must be free of tf.distribute
            model = build_model(config, build_backbone(config), trained.contract.num_classes)
            model.set_weights(trained.model.get_weights())
        calibration = scale_temperature(model, trained.val) if config.calibration == 'temperature' else None
        report = make_report(
            trained.device,
            trained.cache,
            trained.history,
            calibration,
            measure_stages(model),
            hyperparameters=trained.chosen,
            base_version=trained.base_version,
        )
        _write_outputs(model, fn_args, export_config, trained, report)
        remove_checkpoints(trained.checkpoint_dir)
    cluster.wait_for_all()  # when one worker exits before the others, TensorFlow ends these too
