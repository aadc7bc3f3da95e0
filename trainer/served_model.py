"""The module that `trainer.export` saves: the signatures that a client asks, around the model's graph.

Every signature runs the Transform graph that training ran, so that serving cannot preprocess images differently.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.contract import DataContract
from trainer.classifier_graph import ClassifierGraph

LABELS_FILE = 'labels.txt'  # in the SavedModel's assets, one class name on each line

# Number of images that a signature decodes, resizes and classifies at a time. It bounds the memory for any request:
# TFMA sends up to 1,000 images, whose activations take gigabytes at 224 pixels. Larger batches are no faster on a CPU.
MICRO_BATCH = 32
_PARALLEL_DECODES = 8  # images of a micro-batch; each holds its pixels in memory

_NOT_DECODED = 'cannot be decoded: it is not a whole PNG, JPEG, GIF, BMP or WEBP file'


def map_micro_batches(
    function: Callable[..., Sequence[tf.Tensor]], inputs: Sequence[tf.Tensor], outputs: Sequence[tf.TensorSpec]
) -> list[tf.Tensor]:
    """Applies `function` to MICRO_BATCH rows at a time, so that memory does not grow with the number of rows.

    Args:
      function: Takes n rows of each input, and returns n rows of each output.
      inputs: [N, ...]; N may be 0.
      outputs: Specs of what `function` returns, [None, ...].

    Returns:
      The outputs, [N, ...].
    """
    count = tf.shape(inputs[0])[0]
    steps = (count + MICRO_BATCH - 1) // MICRO_BATCH
    # The elements may differ in shape, because the last micro-batch may be shorter.
    arrays = [tf.TensorArray(spec.dtype, steps, infer_shape=False, element_shape=spec.shape) for spec in outputs]

    def run_step(step: tf.Tensor, arrays: list[tf.TensorArray]) -> tuple[tf.Tensor, list[tf.TensorArray]]:
        rows = function(*(each[step * MICRO_BATCH : (step + 1) * MICRO_BATCH] for each in inputs))
        return step + 1, [array.write(step, value) for array, value in zip(arrays, rows, strict=True)]

    _, arrays = tf.while_loop(lambda step, _: step < steps, run_step, (0, arrays), parallel_iterations=1)
    return [tf.ensure_shape(array.concat(), spec.shape) for array, spec in zip(arrays, outputs, strict=True)]


class ColorMap(NamedTuple):
    """What the preprocessing does to colours, an affine map for every backbone: inputs = rgb @ matrix + black."""

    matrix: npt.NDArray[np.float32]
    """[3, 3]; the rows say what a unit of red, green and blue adds."""
    black: npt.NDArray[np.float32]
    """[3]; what becomes of black."""

    def undo(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs of the network, float32 [..., 3], as RGB, uint8 [..., 3]."""
        colors = tf.tensordot(inputs - self.black, np.linalg.inv(self.matrix), 1)
        return tf.cast(tf.clip_by_value(tf.round(colors), 0, 255), tf.uint8)


def find_color_map(transform: Callable[[tf.Tensor], tf.Tensor], image_shape: tuple[int, int, int]) -> ColorMap:
    """Finds the map from what becomes of images of a single colour.

    Args:
      transform: Encoded images, string [N] -> inputs of the network, float32 [N, S, S, 3].
      image_shape: Height, width and channels of the images to ask it for.
    """
    plain = np.zeros((4, *image_shape), np.uint8)
    for channel in range(3):
        plain[channel + 1, ..., channel] = 255
    black, *pure = transform(tf.stack([tf.io.encode_png(image) for image in plain])).numpy()[:, 0, 0]
    return ColorMap((np.stack(pure) - black) / 255, black)


class ServedModel(tf.Module):
    """The Transform graph, the model's graph, the class names, and the signatures.

    Args:
      graph: The model's graph.
      transform_output: Holds the Transform graph that made the training images.
      folder: A folder for the file of class names; saving copies the file into the SavedModel.
      contract: The class names, and the size of raw images.
    """

    def __init__(
        self, graph: ClassifierGraph, transform_output: tft.TFTransformOutput, folder: Path, contract: DataContract
    ):
        super().__init__()
        self._graph, self._contract = graph, contract
        # tf.saved_model.save saves the variables, tables and assets that are attributes of the module.
        self._transform = transform_output.transform_features_layer()
        self._image_spec = {features.IMAGE_KEY: transform_output.raw_feature_spec()[features.IMAGE_KEY]}
        labels = folder / LABELS_FILE
        labels.write_text('\n'.join(contract.class_names) + '\n', encoding='utf-8')
        index, line = tf.lookup.TextFileIndex.LINE_NUMBER, tf.lookup.TextFileIndex.WHOLE_LINE
        initializer = tf.lookup.TextFileInitializer(str(labels), tf.int64, index, tf.string, line)
        self._class_names = tf.lookup.StaticHashTable(initializer, default_value='')
        self._undo_colors = find_color_map(self._transform_images, contract.image_shape).undo

    def get_signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """Returns the signatures by name; `trainer.export.export_model` describes them."""
        raw = tf.TensorSpec([None, *self._contract.image_shape], tf.uint8, name=features.IMAGE_KEY)
        return {
            features.SIGNATURE_SERVING_DEFAULT: self.serve_bytes,
            features.SIGNATURE_SAFE: self.serve_safely,
            features.SIGNATURE_RAW: tf.function(self.serve_raw, input_signature=[raw]),
            features.SIGNATURE_EXAMPLES: self.serve_examples,
            features.SIGNATURE_EXPLAIN: self.explain,
            features.SIGNATURE_TRANSFORM: self.transform_features,
            features.SIGNATURE_CLASS_NAMES: self.name_classes,
        }

    def _transform_images(self, encoded: tf.Tensor) -> tf.Tensor:
        return self._transform({features.IMAGE_KEY: encoded})[features.IMAGE_XF_KEY]

    def _parse(self, examples: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_example(examples, self._image_spec)[features.IMAGE_KEY]

    def _decode(
        self, numbers: tf.Tensor, encoded: tf.Tensor, total: tf.Tensor, is_strict: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Transforms those of n images that can be decoded. Only tf.data can go on after an error.

        Args:
          numbers: Of the images in the request, int32 [n].
          encoded: The images, string [n].
          total: Number of images in the request.
          is_strict: Whether an image that cannot be decoded is an error.

        Returns:
          The places of k images among the n, int32 [k]; and these as inputs of the network, float32 [k, S, S, 3]. If
          there is none, the place n and zeros stand in for it, so that k is never 0.

        Raises:
          tf.errors.InvalidArgumentError: When run, if an image cannot be decoded; it names the first one's number.
        """
        count, shape = tf.size(encoded), self._graph.image_shape

        def transform(place: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return place, tf.ensure_shape(self._transform_images(image[tf.newaxis])[0], shape)

        images = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
        decoded = images.map(transform, num_parallel_calls=_PARALLEL_DECODES).ignore_errors()
        none = tf.data.Dataset.from_tensors((count[tf.newaxis], tf.zeros([1, *shape])))
        batches = decoded.batch(tf.cast(count, tf.int64) + 1).concatenate(none)
        places, inputs = batches.take(1).get_single_element()
        first = tf.reduce_min(tf.where(_mark(places, count), total, numbers))
        message = tf.strings.format(f'image {{}} of {{}}, counted from 0, {_NOT_DECODED}', (first, total))
        is_right = tf.logical_or(first >= total, tf.logical_not(is_strict))
        with tf.control_dependencies([tf.debugging.Assert(is_right, [message])]):
            return places, tf.identity(inputs)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.bool)])
    def _classify(self, encoded: tf.Tensor, is_strict: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns probabilities, float32 [N, classes], and which images were decoded, bool [N]; see `_decode`."""
        total, classes = tf.size(encoded), self._contract.num_classes

        def classify(numbers: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            count = tf.size(encoded)
            places, images = self._decode(numbers, encoded, total, is_strict)
            rows = tf.scatter_nd(places[:, tf.newaxis], self._graph(images), [count + 1, classes])
            return rows[:count], _mark(places, count)

        specs = tf.TensorSpec([None, classes]), tf.TensorSpec([None], tf.bool)
        probabilities, is_decoded = map_micro_batches(classify, (tf.range(total), encoded), specs)
        return probabilities, is_decoded

    def _describe(self, probabilities: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        label = tf.argmax(probabilities, axis=-1) if label is None else label
        return {
            features.OUTPUT_LABEL: label,
            features.OUTPUT_CLASS_NAME: self._class_names.lookup(label),
            features.OUTPUT_PROBABILITIES: probabilities,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE_KEY)])
    def serve_bytes(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._describe(self._classify(image, True)[0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE_KEY)])
    def serve_safely(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, is_decoded = self._classify(image, False)
        label = tf.where(is_decoded, tf.argmax(probabilities, axis=-1), tf.constant(features.NO_LABEL, tf.int64))
        error = tf.where(is_decoded, '', f'The image {_NOT_DECODED}.')
        return {**self._describe(probabilities, label), features.OUTPUT_ERROR: error}

    def serve_raw(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        # The Transform graph takes encoded images. PNG is lossless, so encoding the pixels first changes nothing.
        encoded = tf.map_fn(tf.io.encode_png, image, fn_output_signature=tf.string)
        return self._describe(self._classify(encoded, True)[0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._describe(self._classify(self._parse(examples), True)[0])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name=features.IMAGE_KEY),
            tf.TensorSpec([None], tf.int64, name=features.LABEL_KEY),
        ]
    )
    def explain(self, image: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        total, classes = tf.size(image), self._contract.num_classes
        is_right = tf.reduce_all((label >= features.NO_LABEL) & (label < classes))
        label_range = f'label must be {features.NO_LABEL} (the predicted class) to {classes - 1}'
        checks = [
            tf.debugging.Assert(tf.equal(total, tf.size(label)), ['image and label must have the same length']),
            tf.debugging.Assert(is_right, [label_range]),
        ]

        def explain(numbers: tf.Tensor, encoded: tf.Tensor, labels: tf.Tensor) -> Sequence[tf.Tensor]:
            _, images = self._decode(numbers, encoded, total, tf.constant(True))
            return *self._graph.explain(images, labels), self._undo_colors(images)

        specs = (
            tf.TensorSpec([None, classes]),
            tf.TensorSpec([None, *self._graph.map_shape]),
            tf.TensorSpec([None, *self._graph.image_shape], tf.uint8),
        )
        with tf.control_dependencies(checks):
            inputs = tf.range(total), image, tf.identity(label)
        probabilities, heat_map, seen = map_micro_batches(explain, inputs, specs)
        return {**self._describe(probabilities), features.OUTPUT_SEEN: seen, features.OUTPUT_HEAT_MAP: heat_map}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = self._parse(examples)
        total = tf.size(encoded)
        _, inputs = self._decode(tf.range(total), encoded, total, tf.constant(True))
        return {features.IMAGE_XF_KEY: inputs[:total]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name=features.LABEL_KEY)])
    def name_classes(self, label: tf.Tensor) -> dict[str, tf.Tensor]:
        return {features.OUTPUT_CLASS_NAME: self._class_names.lookup(label)}


def _mark(places: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns which of the places from 0 to count - 1 are among `places`, int32 [k]; bool [count]."""
    return tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places), [count + 1])[:count] > 0
