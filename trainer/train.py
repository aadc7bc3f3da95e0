"""run_fn: what TFX's Trainer calls. Loads, trains, exports."""

import json
import os
import statistics
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from components import features
from trainer import export
from trainer.checkpoint import compute_training_key, locate_checkpoints, remove_checkpoints
from trainer.cluster import Cluster, join_cluster
from trainer.config import ExportConfig, TrainerConfig
from trainer.dataset import EpochOrder, Records, list_batch_starts, make_batches, make_image_rows, read_records
from trainer.device import Device, use_device
from trainer.fit import Examples, Phase, fit_phase, make_schedule
from trainer.model import build_backbone, build_model, compile_model, freeze_below
from trainer.predictions import write_predictions
from trainer.training_rows import Split, prepare_rows
from trainer.weights import load_weights

REPORT_FILE = 'report.json'  # in the model_run artifact, see `TrainingReport`
HISTORY_FILE = 'history.json'  # beside it: a dict an epoch
KERAS_FILE = 'model.keras'  # beside it: the best epoch's model, for Keras

STEPS_PER_EXECUTION = 16  # between two returns to Python, which take as long as a small step


class TrainingReport(NamedTuple):
    """What a training did, in numbers; written as JSON into the model_run artifact."""

    device: str
    """The GPUs by name, or 'CPU (no GPU found)'."""
    precision: str
    """See `trainer.device.Device`."""
    cache: str
    """Where the frozen layers' outputs were kept in the last phase: 'memory', 'disk' or 'off'."""
    images_per_s: float
    """Images trained on a second, the median epoch, validation and the frozen layers' one pass not counted."""
    epochs: int
    """Of the last phase; fewer than asked for when training stopped early."""
    best_epoch: int
    """Whose weights were kept, from 1."""
    accuracy: float
    """On the train split in the best epoch, dropout on, 0-1."""
    val_accuracy: float
    """On the val split after the best epoch, 0-1."""


def list_phases(config: TrainerConfig) -> list[Phase]:
    """What is trained one after the other: the head alone if that was asked for, then all from `train_from` on."""
    main = Phase('training', config.epochs, config.learning_rate)
    return [Phase('head', config.head_epochs, config.head_learning_rate), main] if config.head_epochs else [main]


def train_model(
    model: keras.Model,
    backbone: keras.Model,
    config: TrainerConfig,
    device: Device,
    cluster: Cluster,
    data: dict[str, tuple[Records, Split]],
    *,
    checkpoint_dir: str,
    run_dir: str,
) -> tuple[list[dict], str]:
    """Trains phase after phase, compiling anew for each: Keras ignores layers unfrozen after a compile.

    Args:
      model: from `build_model`; changed in place.
      backbone: its backbone, whose layers are frozen and unfrozen.
      config, device, cluster: how.
      data: from `read_splits`.
      checkpoint_dir: the same for every attempt at this training.
      run_dir: where TensorBoard's logs go.

    Returns:
      The history of all phases, and where the last one's frozen outputs were kept.
    """
    history = []
    (train, train_split), (val, val_split) = data[features.TRAIN_SPLIT], data[features.VAL_SPLIT]
    for phase in list_phases(config):
        freeze_below(backbone, 'none' if phase.name == 'head' else config.get_train_from())
        with prepare_rows(model, config, device, train_split, val_split, run_dir, cluster.share) as rows:
            steps = len(list_batch_starts(train_split.count, config.batch_size, cluster.share.replicas))
            with cluster.scope():
                fitted = cluster.adapt_model(rows.model)
                compile_model(fitted, config, make_schedule(config, phase, steps))
            if not cluster.is_distributed:  # whose batches have no end to stop several steps at
                fitted.steps_per_execution = STEPS_PER_EXECUTION
            history += fit_phase(
                fitted,
                config,
                phase,
                Examples(rows.train, train.labels),
                Examples(rows.val, val.labels),
                cluster=cluster,
                fill=rows.fill,
                checkpoint_dir=checkpoint_dir,
                log_dir=os.path.join(run_dir, phase.name),
            )
    return history, rows.cache


def make_report(device: Device, cache: str, history: list[dict]) -> TrainingReport:
    """Sums a history up; the best epoch is the last phase's."""
    last = [entry for entry in history if entry['phase'] == history[-1]['phase']]
    best = max(last, key=lambda entry: entry['val_accuracy'])
    return TrainingReport(
        device=device.name,
        precision=device.precision,
        cache=cache,
        images_per_s=statistics.median(entry['images_per_s'] for entry in last),
        epochs=len(last),
        best_epoch=best['epoch'],
        accuracy=best['accuracy'],
        val_accuracy=best['val_accuracy'],
    )


def read_splits(
    fn_args: FnArgs, config: TrainerConfig, transform_output: tft.TFTransformOutput
) -> dict[str, tuple[Records, Split]]:
    """The records of `train` and `val`, and their preprocessed images; only those of `train` are augmented."""
    data = {}
    for split, files, augmentation in (
        (features.TRAIN_SPLIT, fn_args.train_files, config.augmentation),
        (features.VAL_SPLIT, fn_args.eval_files, 'none'),
    ):
        records = read_records(files, transform_output)
        images = make_image_rows(records, transform_output, augmentation, config.seed)
        data[split] = records, Split(images, len(records.labels))
    return data


def _write_json(folder: str, name: str, content: object) -> None:
    with tf.io.gfile.GFile(os.path.join(folder, name), 'w') as file:
        json.dump(content, file, indent=2)


def _write_outputs(
    model: keras.Model,
    fn_args: FnArgs,
    transform_output: tft.TFTransformOutput,
    report: TrainingReport,
    history: list[dict],
    data: dict[str, tuple[Records, Split]],
) -> None:
    """Writes what the Trainer leaves: model_run's report, history, .keras file and predictions, the SavedModel."""
    run_dir = fn_args.model_run_dir
    _write_json(run_dir, REPORT_FILE, report._asdict())
    _write_json(run_dir, HISTORY_FILE, history)
    model.save(os.path.join(run_dir, KERAS_FILE))
    val, val_split = data[features.VAL_SPLIT]
    write_predictions(model, val, val_split, run_dir)
    val_batches = make_batches(val_split.images, val.labels, EpochOrder(val_split.count, None), export.MICRO_BATCH)
    export_config = ExportConfig(**fn_args.custom_config['export'])
    export.export_model(model, transform_output, fn_args.serving_model_dir, export_config, val_batches)


def run_fn(fn_args: FnArgs) -> None:
    """TFX's entry point: trains on `train`, chooses on `val`, exports a SavedModel and a .keras file.

    Args:
      fn_args: TFX's; `custom_config` holds a TrainerConfig ('trainer') and an ExportConfig ('export') as dicts.
    """
    config = TrainerConfig(**fn_args.custom_config['trainer'])
    run_dir = fn_args.model_run_dir
    with use_device(config.precision) as device:
        cluster = join_cluster(config.strategy)
        transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
        data = read_splits(fn_args, config, transform_output)
        files = [*fn_args.train_files, *fn_args.eval_files]
        key = compute_training_key(fn_args.custom_config, files, fn_args.transform_graph_path)
        checkpoint_dir = locate_checkpoints(run_dir, key)
        keras.utils.set_random_seed(config.seed)
        with cluster.scope():
            backbone = build_backbone(config)
            load_weights(backbone, config)
            model = build_model(config, backbone)
        history, cache = train_model(
            model, backbone, config, device, cluster, data, checkpoint_dir=checkpoint_dir, run_dir=run_dir
        )

    if cluster.is_chief:
        if cluster.is_distributed:  # the exported network knows nothing of replicas
            trained, model = model, build_model(config, build_backbone(config))
            model.set_weights(trained.get_weights())
        _write_outputs(model, fn_args, transform_output, make_report(device, cache, history), history, data)
        remove_checkpoints(checkpoint_dir)
    cluster.wait_for_all()  # a worker that leaves before the others makes TensorFlow end those
