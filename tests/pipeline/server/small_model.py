"""A small model with the signatures of a pushed one, which is quick to save and to load and says its own number."""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2


def save_version(serving: Path, number: int) -> Path:
    """Saves a version whose label is always its number, and whose probabilities are the image's mean colour.

    Returns:
      The version's folder.
    """

    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(pixels)[0]
        return {
            'label': tf.fill([count], tf.constant(number, tf.int64)),
            'class_name': tf.fill([count], f'version {number}'),
            'probabilities': tf.reduce_mean(tf.cast(pixels, tf.float32), [1, 2]) / 255,
        }

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        def decode_one(one: tf.Tensor) -> tf.Tensor:
            return tf.image.resize(tf.io.decode_image(one, channels=3, expand_animations=False), [8, 8])

        return tf.map_fn(decode_one, encoded, fn_output_signature=tf.TensorSpec([8, 8, 3], tf.float32))

    def mix(image: tf.Tensor, weight: tf.Tensor) -> dict[str, tf.Tensor]:
        return {'mixed': tf.reduce_mean(decode(image), [1, 2, 3]) * weight}

    strings = tf.TensorSpec([None], tf.string)
    functions = {
        'serving_default': tf.function(lambda image: classify(decode(image)), [strings]),
        'serving_raw': tf.function(lambda image: classify(image), [tf.TensorSpec([None, 8, 8, 3], tf.uint8)]),
        'mix': tf.function(mix, [strings, tf.TensorSpec([None], tf.float32)]),
    }
    folder = serving / str(number)
    signatures = {name: function.get_concrete_function() for name, function in functions.items()}
    tf.saved_model.save(tf.Module(), str(folder), signatures)
    return folder


def encode_image(level: int = 0, size: int = 8) -> bytes:
    """Makes a PNG of one grey."""
    encoded: bytes = tf.io.encode_png(tf.fill([size, size, 3], tf.constant(level, tf.uint8))).numpy()
    return encoded


def write_warmups(folder: Path, images: list[bytes]) -> None:
    """Writes warm-up requests into a version's folder, one for each image."""
    path = folder / 'assets.extra' / 'tf_serving_warmup_requests'
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in images:
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = 'small', 'serving_default'
            request.inputs['image'].CopyFrom(tf.make_tensor_proto([image]))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
