"""Signatures that are run without the costly passes: the options that TensorFlow gets, and nothing else changes."""

import threading

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.python.eager import context

from components.saved_model import skip_costly_passes


def read_rewrites() -> rewriter_config_pb2.RewriterConfig:
    """Returns what the graph optimizer is told to do in this thread."""
    serialized = context.context().function_call_options.config_proto_serialized
    return config_pb2.ConfigProto.FromString(serialized).graph_options.rewrite_options


def test_the_passes_are_left_out_within_the_call_only_and_in_every_thread():
    seen = []

    def signature(**inputs):
        seen.append(read_rewrites())
        return inputs

    call = skip_costly_passes(signature)
    before = read_rewrites()
    assert call(image=1) == {'image': 1}
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(seen) == 2
    for rewrites in seen:
        assert rewrites.memory_optimization == rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
        assert rewrites.meta_optimizer_iterations == rewriter_config_pb2.RewriterConfig.ONE
        assert rewrites.disable_tfg_optimizer
    assert read_rewrites() == before
    assert not before.disable_tfg_optimizer


def test_an_error_restores_the_options():
    def fail(**inputs):
        raise ValueError

    before = read_rewrites()
    with pytest.raises(ValueError, match=r'^$'):
        skip_costly_passes(fail)()
    assert read_rewrites() == before


def test_a_signature_gives_the_same_values(tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.constant(tf.random.stateless_normal([8, 8], seed=(1, 2)))

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name='values')])
        def serve(self, values):
            return {'out': tf.nn.relu(values @ self.weights)}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), {'serving_default': module.serve})
    signature = tf.saved_model.load(str(tmp_path)).signatures['serving_default']
    values = tf.random.stateless_normal([4, 8], seed=(3, 4))
    quick, plain = skip_costly_passes(signature)(values=values)['out'], signature(values=values)['out']
    tf.debugging.assert_equal(quick, plain)
    assert float(tf.reduce_max(plain)) > 0
