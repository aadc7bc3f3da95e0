"""run_fn: what TFX's Trainer calls. Loads, trains, exports."""

import json
import logging
import os
import time
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from components.errors import TrainingError
from trainer.config import TrainerConfig
from trainer.dataset import read_dataset
from trainer.export import export_model
from trainer.model import build_backbone, build_model, compile_model
from trainer.weights import load_weights

REPORT_FILE = 'report.json'  # in the model_run artifact, see `TrainingReport`
KERAS_FILE = 'model.keras'  # beside it: the best epoch's model, for Keras

_log = logging.getLogger('trainer')


class TrainingReport(NamedTuple):
    """What a training did, in numbers; written as JSON into the model_run artifact."""

    device: str
    """The GPUs by name, or 'CPU (no GPU found)'."""
    precision: str
    """Keras' dtype policy while training."""
    images_per_s: float
    """Images trained on a second, the median epoch, validation not counted."""
    epochs: int
    best_epoch: int
    """Whose weights were kept, from 1."""
    accuracy: float
    """On the train split in the best epoch, dropout on, 0-1."""
    val_accuracy: float
    """On the val split after the best epoch, 0-1."""


class _EpochTimer(keras.callbacks.Callback):
    """Counts trained images a second, and logs a line an epoch."""

    def __init__(self, epochs: int, batch_size: int):
        super().__init__()
        self._epochs = epochs
        self._batch_size = batch_size
        self.images_per_s: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = self._end = time.monotonic()
        self._batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self._batches = batch + 1
        self._end = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.images_per_s.append(self._batches * self._batch_size / max(self._end - self._begin, 1e-9))
        _log.info(
            'epoch %d of %d: accuracy %.3f, val_accuracy %.3f, %.1f images/s',
            *(epoch + 1, self._epochs, logs['accuracy'], logs['val_accuracy'], self.images_per_s[-1]),
        )


def set_up_device(precision: str) -> tuple[str, str]:
    """Lets GPU memory grow, and chooses the dtype policy.

    Args:
      precision: `trainer.precision`; 'auto' is bfloat16 on compute capability 8 and up, float16 on 7, float32 else.

    Returns:
      The device in words, and the dtype policy in force.
    """
    gpus = tf.config.list_physical_devices('GPU')
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if precision == 'auto':
        capability = min((detail.get('compute_capability', (0, 0)) for detail in details), default=(0, 0))
        precision = {7: 'mixed_float16'}.get(capability[0], 'mixed_bfloat16' if capability[0] >= 8 else 'float32')
    keras.config.set_dtype_policy(precision)
    if not gpus:
        return 'CPU (no GPU found)', precision
    return ', '.join(detail.get('device_name', 'GPU') for detail in details), precision


def fit_model(
    model: keras.Model, config: TrainerConfig, train: tf.data.Dataset, val: tf.data.Dataset, run_dir: str
) -> tuple[dict[str, list[float]], float]:
    """Trains, and leaves the best epoch's weights in `model`.

    Args:
      model: compiled; changed in place.
      config: epochs and batch size.
      train, val: batches as `trainer.dataset.read_dataset` gives them.
      run_dir: where TensorBoard's logs go.

    Returns:
      Keras' history by metric, and images a second.

    Raises:
      TrainingError: the loss is not a number.
    """
    timer = _EpochTimer(config.epochs, config.batch_size)
    best = os.path.join(run_dir, 'best.weights.h5')
    callbacks = [
        keras.callbacks.TerminateOnNaN(raise_error=True),
        keras.callbacks.ModelCheckpoint(best, monitor='val_accuracy', save_best_only=True, save_weights_only=True),
        keras.callbacks.TensorBoard(run_dir, write_graph=False),
        timer,
    ]
    try:
        history = model.fit(train, validation_data=val, epochs=config.epochs, callbacks=callbacks, verbose=0)
    except RuntimeError as error:
        if 'NaN' not in str(error):
            raise
        raise TrainingError(
            f'The training loss became NaN or infinite ({error}); lower trainer.learning_rate '
            f'({config.learning_rate:g}) or set trainer.precision=float32.'
        ) from error
    model.load_weights(best)
    tf.io.gfile.remove(best)
    return history.history, sorted(timer.images_per_s)[len(timer.images_per_s) // 2]


def make_float32_copy(model: keras.Model, config: TrainerConfig) -> keras.Model:
    """The same network and weights with float32 arithmetic: what is served must not need the trainer's GPU."""
    keras.config.set_dtype_policy('float32')
    copy = build_model(config, build_backbone(config.image_size))
    copy.set_weights(model.get_weights())
    return copy


def run_fn(fn_args: FnArgs) -> None:
    """TFX's entry point: trains on `train`, chooses on `val`, exports a SavedModel and a .keras file.

    Args:
      fn_args: TFX's; `custom_config['trainer']` holds a TrainerConfig as a dict.
    """
    settings = fn_args.custom_config['trainer']
    config = TrainerConfig(**{**settings, 'head_units': tuple(settings['head_units'])})
    device, precision = set_up_device(config.precision)
    keras.utils.set_random_seed(config.seed)

    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    train = read_dataset(fn_args.train_files, transform_output, batch_size=config.batch_size, shuffle_seed=config.seed)
    val = read_dataset(fn_args.eval_files, transform_output, batch_size=config.batch_size)

    backbone = build_backbone(config.image_size)
    load_weights(backbone, config.weights)
    model = build_model(config, backbone)
    compile_model(model, config)
    history, images_per_s = fit_model(model, config, train, val, fn_args.model_run_dir)

    best = max(range(config.epochs), key=lambda epoch: history['val_accuracy'][epoch])
    report = TrainingReport(
        device=device,
        precision=precision,
        images_per_s=images_per_s,
        epochs=config.epochs,
        best_epoch=best + 1,
        accuracy=history['accuracy'][best],
        val_accuracy=history['val_accuracy'][best],
    )
    with tf.io.gfile.GFile(os.path.join(fn_args.model_run_dir, REPORT_FILE), 'w') as file:
        json.dump(report._asdict(), file, indent=2)
    model.save(os.path.join(fn_args.model_run_dir, KERAS_FILE))
    if precision != 'float32':
        model = make_float32_copy(model, config)
    export_model(model, transform_output, fn_args.serving_model_dir)
