"""Chooses the device that trains, and the precision it computes in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from trainer.inference_graph import Precision

_ONEDNN_PASS = 'auto_mixed_precision_onednn_bfloat16'

# Operations that average or sum over a batch. Grappler's pass lets them compute in bfloat16 ("infer"), and so do the
# additions and multiplications that follow them, up to the next convolution. A BatchNorm's moving averages then lose
# every increment of less than 1/256 of their value: with momentum 0.99 they stay up to a factor of two away from the
# data's statistics. On the pass's list of unsafe operations ("deny"), these operations and what follows them, which is
# all that a BatchNorm computes, stay in float32, as under Keras' mixed precision.
_FLOAT32_OPERATIONS = 'Mean,SquaredDifference,Sum,BiasAddGrad'
_LISTS = 'TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE'
_LIST_CHANGES = {
    # An operation may be on one list only; the pass ignores the whole graph otherwise.
    f'{_LISTS}_DENYLIST_ADD': _FLOAT32_OPERATIONS,
    f'{_LISTS}_INFERLIST_REMOVE': _FLOAT32_OPERATIONS,
}


class Device(NamedTuple):
    """The device that trains.

    name: The names of the GPUs, or 'CPU (no GPU found)'.
    precision: 'float32'; 'onednn_bfloat16' (on a CPU: oneDNN's bfloat16, switched on in Grappler, with float32
      variables); or Keras' 'mixed_bfloat16' or 'mixed_float16' (on a GPU).
    is_gpu: Whether it is a GPU.
    """

    name: str
    precision: str
    is_gpu: bool

    @property
    def trunk_precision(self) -> Precision:
        """The precision in which a CPU runs the trunk."""
        return 'float32' if self.precision == 'float32' else 'bfloat16'

    @property
    def cache_dtype(self) -> np.dtype[Any]:
        """The NumPy dtype in which the trunk's outputs are cached: the one in which they were computed."""
        if self.precision == 'float32':
            return np.dtype(np.float32)
        return np.dtype(np.float16 if self.precision == 'mixed_float16' else ml_dtypes.bfloat16)


def has_cpu_bfloat16(cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """Returns whether the CPU has units for bfloat16 (AMX or AVX512-BF16). Without them it is slower than float32."""
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return 'amx_bf16' in flags or 'avx512_bf16' in flags


def choose_precision(precision: str, gpu_capability: tuple[int, int] | None) -> str:
    """Resolves the setting `trainer.precision`.

    Args:
      precision: The setting. 'auto' means bfloat16 where the hardware has it, float16 on GPUs of compute capability 7,
        and float32 elsewhere.
      gpu_capability: The lowest compute capability among the GPUs; None when there is no GPU.

    Raises:
      ValueError: The setting is 'onednn_bfloat16' and there is a GPU.
    """
    if precision == 'onednn_bfloat16' and gpu_capability is not None:
        raise ValueError(
            'trainer.precision=onednn_bfloat16 is for CPUs, and this machine has a GPU; set '
            'trainer.precision=mixed_bfloat16 or float32.'
        )
    if precision != 'auto':
        return precision
    if gpu_capability is None:
        return 'onednn_bfloat16' if has_cpu_bfloat16() else 'float32'
    if gpu_capability[0] >= 8:
        return 'mixed_bfloat16'
    return 'mixed_float16' if gpu_capability[0] == 7 else 'float32'


@contextlib.contextmanager
def _keep_sums_in_float32() -> Iterator[None]:
    """Changes the lists of Grappler's bfloat16 pass, which it reads from the environment for each graph."""
    before = {name: os.environ.get(name) for name in _LIST_CHANGES}
    os.environ.update(_LIST_CHANGES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def use_device(precision: str) -> Iterator[Device]:
    """Sets TensorFlow and Keras up for the device and the precision, and sets the precision back at the end.

    GPU memory is set to grow with use instead of being taken all at once. Grappler's oneDNN pass and Keras' dtype
    policy are set for the precision. These two apply to the whole process, and in a local run the Evaluator comes later
    in the same process; so they are set back when the context ends.

    Args:
      precision: The setting `trainer.precision`.
    """
    gpus = tf.config.list_physical_devices('GPU')
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    capability = min((detail.get('compute_capability', (0, 0)) for detail in details), default=None)
    precision = choose_precision(precision, capability)
    is_onednn = precision == 'onednn_bfloat16'
    name = ', '.join(detail.get('device_name', 'GPU') for detail in details) or 'CPU (no GPU found)'
    policy = keras.config.dtype_policy()
    try:
        tf.config.optimizer.set_experimental_options({_ONEDNN_PASS: is_onednn})
        keras.config.set_dtype_policy('float32' if is_onednn else precision)
        with _keep_sums_in_float32():
            yield Device(name, precision, bool(gpus))
    finally:
        tf.config.optimizer.set_experimental_options({_ONEDNN_PASS: False})
        keras.config.set_dtype_policy(policy)
