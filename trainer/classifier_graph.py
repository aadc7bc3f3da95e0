"""Turns the trained network into a TensorFlow graph that classifies images and shows where it looks (Grad-CAM)."""

import keras
import tensorflow as tf

from trainer.inference_graph import Precision, fold_model

# The head's first layer, see trainer.model.add_head: what it reads is the last feature map.
_POOLING = ('head_average', 'head_flatten')


class ClassifierGraph(tf.Module):
    """A network's inference, as `trainer.inference_graph.InferenceGraph` has it, in two parts: the trunk and the head.

    The trunk computes the last feature map, [N, h, w, channels], and holds nearly all weights. Grad-CAM needs the
    gradient of the head only, so it shares the trunk, and a SavedModel holds every weight once.

    Called with preprocessed images, float32 [N, S, S, 3], it returns their probabilities, float32 [N, classes].

    Args:
      model: A network of `trainer.model.build_model`. Later changes to its weights do not reach the graph.
      precision: Precision of weights and arithmetic. Hardware without bfloat16 emulates it, slowly.
      as_constants: Whether the weights are constants of the graph instead of variables.
    """

    def __init__(self, model: keras.Model, precision: Precision = 'float32', *, as_constants: bool = True):
        super().__init__()
        folded = fold_model(model, precision)
        pooling = next(layer for layer in folded.layers if layer.name in _POOLING)
        last = folded.get_layer(folded.output_names[0])  # Dense with softmax
        trunk, head = keras.Model(folded.input, pooling.input), keras.Model(pooling.input, last.input)
        groups = [[*part.trainable_variables, *part.non_trainable_variables] for part in (trunk, head, last)]
        if as_constants:
            weights = [[variable.numpy() for variable in group] for group in groups]
        else:
            weights = [[variable.value for variable in group] for group in groups]
            self._weights = weights  # tf.saved_model.save saves the variables that are attributes of the module
        self.image_shape = tuple(model.input_shape[1:])
        self.map_shape = tuple(pooling.input.shape[1:3])
        image_spec = tf.TensorSpec([None, *self.image_shape], tf.float32)

        def call(part: keras.Model, values: list[tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
            count = len(part.trainable_variables)
            outputs, _ = part.stateless_call(values[:count], values[count:], inputs, training=False)
            return outputs

        @tf.function(input_signature=[image_spec], autograph=False)
        def find_features(images: tf.Tensor) -> tf.Tensor:
            return call(trunk, weights[0], images)

        # A function of its own, since constants are saved with each function whose code has them.
        @tf.function(input_signature=[], autograph=False)
        def read_head() -> list[tf.Tensor]:
            return [tf.convert_to_tensor(value) for group in weights[1:] for value in group]

        def find_logits(channels: tf.Tensor) -> tf.Tensor:
            *values, kernel, bias = read_head()
            return tf.cast(call(head, values, channels), tf.float32) @ kernel + bias

        @tf.function(input_signature=[image_spec], autograph=False)
        def infer(images: tf.Tensor) -> tf.Tensor:
            return tf.nn.softmax(find_logits(find_features(images)))

        @tf.function(input_signature=[image_spec, tf.TensorSpec([None], tf.int64)], autograph=False)
        def explain(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = find_features(images)
            channels = tf.cast(found, tf.float32)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(channels)
                logits = find_logits(tf.cast(channels, found.dtype))
                explained = tf.where(labels < 0, tf.argmax(logits, axis=-1), labels)
                scores = tf.reduce_sum(logits * tf.one_hot(explained, logits.shape[-1]), axis=-1)
            importance = tf.reduce_mean(tape.gradient(scores, channels), axis=(1, 2), keepdims=True)
            maps = tf.nn.relu(tf.reduce_sum(importance * channels, axis=-1))
            return tf.nn.softmax(logits), tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=(1, 2), keepdims=True))

        # Traced here. A first call within another function's trace would trace it there, where Keras is out of reach.
        for function in (find_features, read_head, infer, explain):
            function.get_concrete_function()
        self._infer, self._explain = infer, explain

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._infer(images)

    def explain(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Classifies images, and finds where the network sees a class, by Selvaraju et al., "Grad-CAM" (2017).

        The map is the positive part of the sum of the channels of the last feature map, each weighted by the mean
        gradient of the class's logit with respect to it.

        Args:
          images: Preprocessed, float32 [N, S, S, 3].
          labels: The class to explain for each image, int64 [N]; -1 stands for the predicted one.

        Returns:
          The probabilities, float32 [N, classes]; and the maps, float32 [N, h, w] of the feature map's size, with 1 at
          the largest value, and all 0 if nothing is positive.
        """
        probabilities, maps = self._explain(images, labels)
        return probabilities, maps
