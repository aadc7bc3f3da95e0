"""The inference graph: it predicts what Keras predicts, and no BatchNorm is left after a convolution."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import IMAGE_SIZE
from trainer.config import TrainerConfig
from trainer.inference_graph import InferenceGraph, find_foldable
from trainer.model import build_backbone, build_model

pytestmark = pytest.mark.slow

CONVOLUTIONS = 53  # in ResNet50 without top


def randomize_weights(model: keras.Model) -> None:
    """Gives biases and BatchNorm statistics values as after training; those of a new model would be optimized away."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [
                    random.uniform(low, high, weight.shape)
                    for weight, (low, high) in zip(
                        layer.weights, [(0.7, 1.3), (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5)], strict=True
                    )
                ]
            )
        elif getattr(layer, 'bias', None) is not None:
            layer.bias.assign(random.uniform(-0.3, 0.3, layer.bias.shape))


@pytest.fixture(scope='module')
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    config = TrainerConfig(image_size=IMAGE_SIZE, head_units=(16,))
    return build_model(config, build_backbone(config), 10)


@pytest.fixture(scope='module')
def trained(model) -> keras.Model:
    model = keras.models.clone_model(model)
    randomize_weights(model)
    return model


@pytest.fixture(scope='module')
def float32_graph(trained):
    return InferenceGraph(trained, 'float32')


@pytest.fixture(scope='module')
def bfloat16_graph(trained):
    return InferenceGraph(trained, 'bfloat16')


@pytest.fixture(scope='module')
def pixels() -> np.ndarray:
    """Preprocessed images, float32 [10, 32, 32, 3]."""
    return np.random.default_rng(1).uniform(-120, 130, (10, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def list_nodes(function) -> list:
    graph = function.infer.get_concrete_function().graph.as_graph_def()
    return [*graph.node, *(node for body in graph.library.function for node in body.node_def)]


def run_keras(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model(images, training=False).numpy()


def test_with_new_random_weights_it_predicts_what_keras_predicts(model, pixels):
    np.testing.assert_allclose(InferenceGraph(model, 'float32')(pixels), run_keras(model, pixels), atol=1e-5)


def test_with_trained_batchnorms_it_predicts_what_keras_predicts(trained, float32_graph, model, pixels):
    expected = run_keras(trained, pixels)
    assert abs(expected - run_keras(model, pixels)).max() > 0.05  # the statistics matter
    np.testing.assert_allclose(float32_graph(pixels), expected, atol=1e-4)


def test_in_bfloat16_it_predicts_nearly_what_keras_predicts(trained, bfloat16_graph, pixels):
    got = bfloat16_graph(pixels)
    assert got.dtype == tf.float32
    expected = run_keras(trained, pixels)
    np.testing.assert_allclose(got, expected, atol=0.05)
    assert not np.array_equal(got, expected)


def test_every_convolution_has_its_batchnorm_folded_in(trained, float32_graph):
    ops = Counter(node.op for node in list_nodes(float32_graph))
    assert len(find_foldable(trained)) == ops['Conv2D'] == CONVOLUTIONS
    assert not [op for op in ops if 'BatchNorm' in op]
    # Two BatchNorms are left, those of the head, which come after Flatten and Dropout.
    assert ops['Rsqrt'] == 2


def test_by_default_the_weights_are_constants_and_there_are_no_variables(float32_graph, bfloat16_graph):
    for function in (float32_graph, bfloat16_graph):
        concrete = function.infer.get_concrete_function()
        assert not concrete.graph.variables
        assert not concrete.captured_inputs
        assert not [node.op for node in list_nodes(function) if 'Variable' in node.op]


def test_with_weights_as_variables_it_predicts_the_same(trained, float32_graph, pixels, tmp_path):
    graph = InferenceGraph(trained, 'float32', as_constants=False)
    np.testing.assert_allclose(graph(pixels), float32_graph(pixels), atol=1e-5)
    assert graph.infer.get_concrete_function().graph.as_graph_def().ByteSize() < 1e6
    tf.saved_model.save(graph, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.infer(pixels), graph(pixels))


def test_in_bfloat16_it_convolves_in_bfloat16_and_the_constants_take_half_the_bytes(float32_graph, bfloat16_graph):
    dtypes = {node.attr['T'].type for node in list_nodes(bfloat16_graph) if node.op == 'Conv2D'}
    assert dtypes == {tf.bfloat16.as_datatype_enum}
    graphs = (function.infer.get_concrete_function().graph for function in (float32_graph, bfloat16_graph))
    sizes = [graph.as_graph_def().ByteSize() for graph in graphs]
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.02)


def test_later_changes_of_the_weights_do_not_reach_the_graph(model, pixels):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    float32_graph = InferenceGraph(copy, 'float32')
    before = float32_graph(pixels).numpy()
    randomize_weights(copy)
    np.testing.assert_array_equal(float32_graph(pixels), before)


def test_it_runs_in_tf_data_with_a_static_shape(trained, float32_graph, pixels):
    dataset = tf.data.Dataset.from_tensor_slices(pixels).batch(4).map(float32_graph)
    assert dataset.element_spec == tf.TensorSpec([None, 10], tf.float32)
    np.testing.assert_allclose(np.concatenate(list(dataset)), run_keras(trained, pixels), atol=1e-4)


def test_a_part_of_a_network_can_be_a_graph_too(trained, pixels):
    trunk = keras.Model(trained.input, trained.get_layer('conv4_block6_out').output)
    expected = run_keras(trunk, pixels)
    for precision, tolerance in (('float32', 1e-4), ('bfloat16', 0.05)):
        got = InferenceGraph(trunk, precision)(pixels)
        assert got.dtype == tf.float32
        assert abs(got - expected).numpy().max() < tolerance * abs(expected).max()


def make_small_model(connect) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, connect(inputs))
    randomize_weights(model)
    return model


def connect_twice_used(inputs):
    conv = keras.layers.Conv2D(4, 3)(inputs)
    return keras.layers.Add()([conv, keras.layers.BatchNormalization()(conv)])


def connect_activated(inputs):
    return keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation='relu')(inputs))


def connect_shared(inputs):
    norm = keras.layers.BatchNormalization()
    return keras.layers.Add()([norm(keras.layers.Conv2D(4, 3)(inputs)), norm(keras.layers.Conv2D(4, 3)(inputs))])


def connect_depthwise(inputs):
    return keras.layers.BatchNormalization()(keras.layers.DepthwiseConv2D(3)(inputs))


@pytest.mark.parametrize('connect', [connect_twice_used, connect_activated, connect_shared, connect_depthwise])
def test_a_batchnorm_that_cannot_be_folded_stays_and_the_output_is_right(connect):
    model = make_small_model(connect)
    images = np.random.default_rng(2).normal(size=(3, 8, 8, 3)).astype(np.float32)
    assert find_foldable(model) == {}
    np.testing.assert_allclose(InferenceGraph(model, 'float32')(images), run_keras(model, images), atol=1e-5)


def test_a_convolution_without_a_bias_gets_one_from_its_batchnorm():
    inputs = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
    model = keras.Model(inputs, keras.layers.ReLU()(keras.layers.BatchNormalization(epsilon=0.1)(conv)))
    norm = model.layers[2]
    norm.set_weights([np.full(4, value) for value in (0.5, 0.2, -0.4, 2.0)])
    images = np.random.default_rng(2).normal(size=(3, 8, 8, 3)).astype(np.float32)
    assert len(find_foldable(model)) == 1
    np.testing.assert_allclose(InferenceGraph(model, 'float32')(images), run_keras(model, images), atol=1e-5)


def test_models_that_cannot_be_folded_are_refused():
    sequential = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match='Only functional models can be folded'):
        InferenceGraph(sequential, 'float32')
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match='Only models without models among their layers can be folded'):
        InferenceGraph(keras.Model(inputs, sequential(inputs)), 'float32')
