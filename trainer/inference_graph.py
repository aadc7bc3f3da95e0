"""InferenceGraph: a Keras model as one graph for inference, its BatchNorms folded into the convolutions.

The export serves such a graph, and training runs the layers that it does not train through one. Folding is done
on the weights, not left to Grappler: Keras 3 writes BatchNorm as multiplications and additions, which Grappler moves
through a convolution's bias only where the statistics are trivial (mean 0, bias 0), as untrained ones are.
"""

from collections import Counter
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

Precision = Literal['float32', 'bfloat16']


def _list_producers(model: keras.Model) -> dict[str, list[str]]:
    """Layer name -> names of the layers whose outputs it takes, one entry for every use, from the model's config."""

    def find_names(node) -> list[str]:
        if isinstance(node, dict):
            if node.get('class_name') == '__keras_tensor__':
                return [node['config']['keras_history'][0]]
            node = list(node.values())
        return [name for item in node for name in find_names(item)] if isinstance(node, list | tuple) else []

    return {layer['name']: find_names(layer['inbound_nodes']) for layer in model.get_config()['layers']}


def find_foldable(model: keras.Model) -> dict[str, str]:
    """BatchNorm -> Conv2D by name, for each BatchNorm that can be merged into the convolution before it.

    That takes a convolution without an activation of its own, and whose output goes nowhere else.
    """
    producers = _list_producers(model)
    uses = Counter(name for names in producers.values() for name in names) + Counter(model.output_names)
    foldable = {}
    for layer in model.layers:
        sources = producers[layer.name]
        if not isinstance(layer, keras.layers.BatchNormalization) or len(sources) != 1:
            continue
        conv = model.get_layer(sources[0])
        # A Conv2D's subclasses (transposed, depthwise) order their kernels otherwise.
        is_plain = type(conv) is keras.layers.Conv2D and conv.activation is keras.activations.linear
        if is_plain and conv.data_format == 'channels_last' and layer.axis in (-1, 3) and uses[conv.name] == 1:
            foldable[layer.name] = conv.name
    return foldable


def _merge_weights(conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of the convolution that does what `conv` and then `norm`, in inference, do."""
    scale = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    if norm.scale:
        scale = scale * norm.gamma.numpy()
    bias = conv.bias.numpy() if conv.use_bias else 0
    shift = norm.beta.numpy() if norm.center else 0
    return [conv.kernel.numpy() * scale, (bias - norm.moving_mean.numpy()) * scale + shift]


def fold_model(model: keras.Model, precision: Precision) -> keras.Model:
    """A copy for inference, without the BatchNorms that can be merged into a convolution.

    Args:
      model: functional, built, without models as layers; of any dtype policy.
      precision: of the copy's weights and arithmetic; its output layers compute in float32 in any case, where
        half precision would lose small probabilities.

    Raises:
      ValueError: the model is not functional, or holds another.
    """
    if not isinstance(model, keras.Model) or not hasattr(model, 'output_names') or isinstance(model, keras.Sequential):
        raise ValueError(f'Only functional models can be folded. Received: {model!r}')
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if nested:
        raise ValueError(f'Only models without models as layers can be folded. Received: {nested} in {model.name}')
    foldable = find_foldable(model)
    norms = {conv: model.get_layer(norm) for norm, conv in foldable.items()}

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = {**layer.get_config(), 'dtype': 'float32' if layer.name in model.output_names else precision}
        if layer.name in norms:
            config['use_bias'] = True
        return type(layer).from_config(config)

    def call_layer(layer: keras.layers.Layer, *args, **kwargs):
        return args[0] if layer.name in foldable else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=clone_layer, call_function=call_layer)
    for layer in model.layers:
        if layer.weights and layer.name not in foldable:
            is_merged = layer.name in norms
            weights = _merge_weights(layer, norms[layer.name]) if is_merged else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


class InferenceGraph(tf.Module):
    """The inference of a model, its BatchNorms folded, as a function that keeps nothing of Keras.

    Called with float32 [N, ...], the model's input shape, it gives float32 [N, ...], its output shape. It can be called
    in other tf.functions and in tf.data, and be part of a module that tf.saved_model.save writes. It is plain
    TensorFlow for any device: fusing is left to the runtime that loads it, which knows its own. Later changes of the
    model's weights do not reach it.

    Args:
      model: functional, built, without models as layers, one input and one output.
      precision: of weights and arithmetic. bfloat16 wants a CPU or GPU that has it, others emulate it slowly.
      is_frozen: whether the weights are constants of the graph, which oneDNN arranges for its kernels once, instead of
        variables, which cost it that at every call; but a SavedModel's functions each load a copy of constants.

    Raises:
      ValueError: the model is not functional, or holds another.
    """

    def __init__(self, model: keras.Model, precision: Precision = 'float32', *, is_frozen: bool = True):
        super().__init__()
        folded = fold_model(model, precision)
        variables = folded.trainable_variables, folded.non_trainable_variables
        if is_frozen:
            weights = [[variable.numpy() for variable in group] for group in variables]
        else:
            weights = [[variable.value for variable in group] for group in variables]
            self._weights = weights  # an attribute, so that they are saved

        # TensorFlow may inline it: kept apart (_noinline), its first call takes twice as long, optimized in two places.
        @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)], autograph=False)
        def infer(inputs):
            outputs, _ = folded.stateless_call(*weights, inputs, training=False)
            return tf.ensure_shape(tf.cast(outputs, tf.float32), [None, *model.output_shape[1:]])

        # Traced now: a first call inside another function's trace would trace anew with Keras out of reach.
        infer.get_concrete_function()
        self.infer = infer

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.infer(inputs)
