"""Turns a Keras model into a TensorFlow graph for inference, with every BatchNorm folded into its convolution.

The exported SavedModel serves such a graph, and training runs the frozen layers on a CPU through one.

The weights are folded here, because Grappler does not do it. Keras 3 computes a BatchNorm as multiplications and
additions, and Grappler moves these through a convolution's bias only while the statistics are those of an untrained
BatchNorm (mean 0, bias 0).
"""

from collections import Counter
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Precision = Literal['float32', 'bfloat16']


def _list_producers(model: keras.Model) -> dict[str, list[str]]:
    """Returns the names of the layers whose outputs each layer takes, by the layer's name.

    A name is listed once for every use. The names are read from the model's config, since no public attribute of Keras
    has them.
    """

    def find_names(node: Any) -> list[str]:
        if isinstance(node, dict):
            if node.get('class_name') == '__keras_tensor__':
                return [node['config']['keras_history'][0]]
            node = list(node.values())
        return [name for item in node for name in find_names(item)] if isinstance(node, list | tuple) else []

    return {layer['name']: find_names(layer['inbound_nodes']) for layer in model.get_config()['layers']}


def find_foldable(model: keras.Model) -> dict[str, str]:
    """Finds the BatchNorm layers that can be folded into the Conv2D before them.

    A BatchNorm can be folded if the convolution has no activation and nothing else uses its output.

    Returns:
      The name of the Conv2D by the name of its BatchNorm.
    """
    producers = _list_producers(model)
    uses = Counter(name for names in producers.values() for name in names) + Counter(model.output_names)
    foldable = {}
    for layer in model.layers:
        sources = producers[layer.name]
        if not isinstance(layer, keras.layers.BatchNormalization) or len(sources) != 1:
            continue
        conv = model.get_layer(sources[0])
        # Conv2D's subclasses (transposed, depthwise) have kernels with a different order of axes.
        is_plain = type(conv) is keras.layers.Conv2D and conv.activation is keras.activations.linear
        if is_plain and conv.data_format == 'channels_last' and layer.axis in (-1, 3) and uses[conv.name] == 1:
            foldable[layer.name] = conv.name
    return foldable


def _merge_weights(conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization) -> list[npt.NDArray[np.float32]]:
    """Returns the kernel and bias of the convolution that computes what `conv` followed by `norm` does in inference."""
    scale = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    if norm.scale:
        scale = scale * norm.gamma.numpy()
    bias = conv.bias.numpy() if conv.use_bias else 0
    shift = norm.beta.numpy() if norm.center else 0
    return [conv.kernel.numpy() * scale, (bias - norm.moving_mean.numpy()) * scale + shift]


def fold_model(model: keras.Model, precision: Precision) -> keras.Model:
    """Copies a model for inference, with the BatchNorms folded that `find_foldable` finds.

    Args:
      model: A functional model of any dtype policy, built, without models among its layers.
      precision: Precision of the copy's weights and arithmetic. The output layers always compute in float32, because
        half precision would lose small probabilities.

    Raises:
      ValueError: The model is not functional, or has a model among its layers.
    """
    if not isinstance(model, keras.Model) or not hasattr(model, 'output_names') or isinstance(model, keras.Sequential):
        raise ValueError(f'Only functional models can be folded. Received: {model!r}')
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if nested:
        raise ValueError(
            f'Only models without models among their layers can be folded. Received: {model.name} with {nested}'
        )
    foldable = find_foldable(model)
    norms = {conv: model.get_layer(norm) for norm, conv in foldable.items()}

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = {**layer.get_config(), 'dtype': 'float32' if layer.name in model.output_names else precision}
        if layer.name in norms:
            config['use_bias'] = True
        return type(layer).from_config(config)

    def call_layer(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in foldable else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=clone_layer, call_function=call_layer)
    for layer in model.layers:
        if layer.weights and layer.name not in foldable:
            is_merged = layer.name in norms
            weights = _merge_weights(layer, norms[layer.name]) if is_merged else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


class InferenceGraph(tf.Module):
    """A model's inference as a TensorFlow function, with folded BatchNorms and without anything of Keras.

    Called with float32 [N, ...] of the model's input shape, it returns float32 [N, ...] of its output shape. It can be
    called in other tf.functions and in tf.data, and be part of a module that tf.saved_model.save writes. It holds only
    standard TensorFlow operations and runs on any device: fusing them is left to the runtime that loads the graph,
    which knows its device. Changes to the model's weights after the graph is built do not reach it.

    Args:
      model: A functional model, built, without models among its layers, with one input and one output.
      precision: Precision of weights and arithmetic. Hardware without bfloat16 emulates it, slowly.
      as_constants: Whether the weights are constants of the graph instead of variables. oneDNN arranges constants for
        its kernels once, and variables again at every call. But every function of a SavedModel loads a copy of its
        constants.

    Raises:
      ValueError: The model is not functional, or has a model among its layers.
    """

    def __init__(self, model: keras.Model, precision: Precision = 'float32', *, as_constants: bool = True):
        super().__init__()
        folded = fold_model(model, precision)
        variables = folded.trainable_variables, folded.non_trainable_variables
        if as_constants:
            weights = [[variable.numpy() for variable in group] for group in variables]
        else:
            weights = [[variable.value for variable in group] for group in variables]
            self._weights = weights  # tf.saved_model.save saves the variables that are attributes of the module

        # TensorFlow may inline the function. Kept apart (the attribute _noinline), its first call takes twice as long,
        # because it is optimized in two places.
        @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)], autograph=False)
        def infer(inputs: tf.Tensor) -> tf.Tensor:
            outputs, _ = folded.stateless_call(*weights, inputs, training=False)
            return tf.ensure_shape(tf.cast(outputs, tf.float32), [None, *model.output_shape[1:]])

        # The function is traced here. A first call within another function's trace would trace it there, where Keras
        # is out of reach.
        infer.get_concrete_function()
        self.infer = infer

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.infer(inputs)
