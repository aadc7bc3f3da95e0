"""The SavedModel: four signatures, each through the Transform graph, so that serving cannot differ from training."""

import tempfile
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components import features

LABELS_FILE = 'labels.txt'  # in the SavedModel's assets, a class name a line


def _make_class_names_table(folder: Path) -> tf.lookup.StaticHashTable:
    """int64 label -> string class name, from a file that travels in the SavedModel's assets."""
    path = folder / LABELS_FILE
    path.write_text('\n'.join(features.CLASS_NAMES) + '\n')
    return tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(path), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
        ),
        default_value='',
    )


def export_model(model: keras.Model, transform_output: tft.TFTransformOutput, out: str) -> None:
    """Writes `model` as a SavedModel that TensorFlow Serving, TFMA and plain TensorFlow load without our code.

    Signatures (N is the batch):
      serving_default: image, string [N], PNG or JPEG bytes of any size.
      serving_raw: image, uint8 [N, 32, 32, 3], RGB.
      examples: examples, string [N], serialized tf.Example with an `image`.
      transform_features: examples, string [N] -> image_xf, float32 [N, S, S, 3].
    The first three answer with label, int64 [N]; class_name, string [N]; probabilities, float32 [N, 10].

    Args:
      model: preprocessed images -> probabilities, float32.
      transform_output: the graph that made the training images.
      out: folder to write to; a local path or a URI that TensorFlow opens.
    """
    image_spec = {features.IMAGE_KEY: transform_output.raw_feature_spec()[features.IMAGE_KEY]}
    transform = transform_output.transform_features_layer()

    def transform_images(encoded):
        return transform({features.IMAGE_KEY: encoded})[features.IMAGE_XF_KEY]

    with tempfile.TemporaryDirectory() as folder:
        class_names = _make_class_names_table(Path(folder))

        def classify(encoded):
            probabilities = model(transform_images(encoded), training=False)
            label = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
            return {
                features.OUTPUT_LABEL: label,
                features.OUTPUT_CLASS_NAME: class_names.lookup(label),
                features.OUTPUT_PROBABILITIES: probabilities,
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE_KEY)])
        def serve_bytes(image):
            return classify(image)

        @tf.function(input_signature=[tf.TensorSpec([None, *features.IMAGE_SHAPE], tf.uint8, name=features.IMAGE_KEY)])
        def serve_raw(image):
            # PNG is lossless, and the detour keeps the Transform graph, which takes bytes, the only way in.
            return classify(tf.map_fn(tf.io.encode_png, image, fn_output_signature=tf.string))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
        def serve_examples(examples):
            return classify(tf.io.parse_example(examples, image_spec)[features.IMAGE_KEY])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
        def transform_features(examples):
            encoded = tf.io.parse_example(examples, image_spec)[features.IMAGE_KEY]
            return {features.IMAGE_XF_KEY: transform_images(encoded)}

        # Keras finds the model's variables in the endpoints; a model that is tracked as well is saved twice.
        archive = keras.export.ExportArchive()
        archive.track(transform)
        archive.track(class_names)
        archive.add_endpoint(features.SIGNATURE_SERVING_DEFAULT, serve_bytes)
        archive.add_endpoint(features.SIGNATURE_RAW, serve_raw)
        archive.add_endpoint(features.SIGNATURE_EXAMPLES, serve_examples)
        archive.add_endpoint(features.SIGNATURE_TRANSFORM, transform_features)
        archive.write_out(out, verbose=False)
