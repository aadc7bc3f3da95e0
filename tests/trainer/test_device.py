"""The precision that is chosen for the hardware, and the settings of the process."""

import contextlib
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import device
from trainer.device import Device, choose_precision, has_cpu_bfloat16, use_device


@pytest.mark.parametrize(
    ('flags', 'expected'), [('avx2 avx512_bf16 x', True), ('avx2 amx_bf16', True), ('avx2 avx512f', False)]
)
def test_bfloat16_is_read_from_the_cpus_flags(tmp_path, flags, expected):
    (tmp_path / 'cpuinfo').write_text(f'flags : {flags}\n')
    assert has_cpu_bfloat16(tmp_path / 'cpuinfo') is expected
    assert not has_cpu_bfloat16(tmp_path / 'none')


@pytest.mark.parametrize(
    ('capability', 'cpu', 'expected'),
    [
        (None, True, 'onednn_bfloat16'),
        (None, False, 'float32'),
        ((9, 0), True, 'mixed_bfloat16'),
        ((7, 5), True, 'mixed_float16'),
        ((6, 0), True, 'float32'),
    ],
)
def test_auto_chooses_the_fastest_precision_of_the_hardware(monkeypatch, capability, cpu, expected):
    monkeypatch.setattr(device, 'has_cpu_bfloat16', lambda: cpu)
    assert choose_precision('auto', capability) == expected
    assert choose_precision('float32', capability) == 'float32'


def test_onednn_bfloat16_is_refused_on_a_gpu():
    with pytest.raises(ValueError, match=r'is for CPUs, and this machine has a GPU; set .*mixed_bfloat16 or float32'):
        choose_precision('onednn_bfloat16', (9, 0))


@pytest.mark.parametrize('precision', ['onednn_bfloat16', 'mixed_bfloat16'])
def test_the_settings_of_the_process_are_set_back(precision):
    """In a local run the Evaluator comes later in the same process, and must not run in the Trainer's precision."""
    with contextlib.suppress(RuntimeError), use_device(precision) as used:
        assert used.name == 'CPU (no GPU found)'
        assert used.precision == precision
        options = tf.config.optimizer.get_experimental_options()
        assert options['auto_mixed_precision_onednn_bfloat16'] is (precision == 'onednn_bfloat16')
        assert keras.config.dtype_policy().name == ('float32' if precision == 'onednn_bfloat16' else precision)
        raise RuntimeError
    assert not tf.config.optimizer.get_experimental_options()['auto_mixed_precision_onednn_bfloat16']
    assert keras.config.dtype_policy().name == 'float32'


def test_sums_over_a_batch_are_kept_out_of_bfloat16_while_training_and_only_then(monkeypatch):
    """An operation on two of Grappler's lists makes the pass fail, so it leaves the one and enters the other."""
    added, removed = (
        f'TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_{change}' for change in ('DENYLIST_ADD', 'INFERLIST_REMOVE')
    )
    monkeypatch.delenv(added, raising=False)
    monkeypatch.setenv(removed, 'Tanh')
    with use_device('float32'):
        assert os.environ[added] == os.environ[removed] == 'Mean,SquaredDifference,Sum,BiasAddGrad'
    assert added not in os.environ
    assert os.environ[removed] == 'Tanh'


def test_the_trunks_outputs_are_cached_in_the_dtype_they_were_computed_in():
    assert Device('', 'float32', False).cache_dtype == np.float32
    assert Device('', 'onednn_bfloat16', False).cache_dtype.name == 'bfloat16'
    assert Device('', 'mixed_bfloat16', True).cache_dtype.name == 'bfloat16'
    assert Device('', 'mixed_float16', True).cache_dtype == np.float16
