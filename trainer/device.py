"""Which device trains, in which arithmetic."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

_ONEDNN_PASS = 'auto_mixed_precision_onednn_bfloat16'
FrozenPrecision = Literal['float32', 'bfloat16']


class Device(NamedTuple):
    """What training runs on.

    name: the GPUs by name, or 'CPU (no GPU found)'.
    precision: float32; onednn_bfloat16 (CPU: oneDNN's bfloat16 through grappler, float32 variables); or Keras'
      mixed_bfloat16 or mixed_float16 (GPU).
    is_gpu: whether a GPU trains.
    """

    name: str
    precision: str
    is_gpu: bool

    @property
    def frozen_precision(self) -> FrozenPrecision:
        """What the frozen layers run in on a CPU."""
        return 'float32' if self.precision == 'float32' else 'bfloat16'

    @property
    def cache_dtype(self) -> np.dtype:
        """What the frozen layers' outputs are kept in: the type they were computed in."""
        kept = {'float32': np.float32, 'mixed_float16': np.float16}
        return np.dtype(kept.get(self.precision, ml_dtypes.bfloat16))


def has_cpu_bfloat16(cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware, with AMX or AVX512-BF16; else it is slower than float32."""
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return 'amx_bf16' in flags or 'avx512_bf16' in flags


def choose_precision(precision: str, gpu_capability: tuple[int, int] | None) -> str:
    """Resolves `trainer.precision`.

    Args:
      precision: the setting; 'auto' takes bfloat16 where the hardware has it, float16 on compute capability 7, else
        float32.
      gpu_capability: the least compute capability of the GPUs; None without a GPU.

    Raises:
      ValueError: oneDNN's bfloat16 is asked for on a GPU.
    """
    if precision == 'onednn_bfloat16' and gpu_capability is not None:
        raise ValueError('trainer.precision=onednn_bfloat16 is for CPUs; a GPU takes mixed_bfloat16 or float32.')
    if precision != 'auto':
        return precision
    if gpu_capability is None:
        return 'onednn_bfloat16' if has_cpu_bfloat16() else 'float32'
    if gpu_capability[0] >= 8:
        return 'mixed_bfloat16'
    return 'mixed_float16' if gpu_capability[0] == 7 else 'float32'


@contextlib.contextmanager
def use_device(precision: str) -> Iterator[Device]:
    """Lets GPU memory grow, and sets grappler and the dtype policy for the precision chosen.

    Both are switches of the whole process, and in a local run the Evaluator comes after in the same one; so they are
    set back in the end.

    Args:
      precision: `trainer.precision`.
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
        yield Device(name, precision, bool(gpus))
    finally:
        tf.config.optimizer.set_experimental_options({_ONEDNN_PASS: False})
        keras.config.set_dtype_policy(policy)
