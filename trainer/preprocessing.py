"""preprocessing_fn: from raw features to what the backbone takes.

TFX Transform calls it once and saves its graph; training, evaluation and serving all run that graph, so that
they cannot differ.
"""

import keras
import tensorflow as tf

from components import features


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """One PNG or JPEG of any size as uint8 [32, 32, 3].

    Larger or smaller images are brought to the size of the training images (antialiased), because a model
    that has only seen upscaled 32-pixel images does worse on sharp ones. Grey images become RGB.

    Args:
      encoded: string scalar.

    Raises:
      tf.errors.InvalidArgumentError: when run, if the bytes are no image that TensorFlow can decode.
    """
    height, width, channels = features.IMAGE_SHAPE
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    image.set_shape([None, None, channels])
    is_contract_size = tf.reduce_all(tf.equal(tf.shape(image)[:2], [height, width]))
    image = tf.cond(
        is_contract_size,
        lambda: image,
        lambda: tf.cast(
            tf.clip_by_value(tf.round(tf.image.resize(image, [height, width], antialias=True)), 0, 255), tf.uint8
        ),
    )
    return tf.ensure_shape(image, features.IMAGE_SHAPE)


def preprocess_images(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """uint8 [N, 32, 32, 3] -> float32 [N, image_size, image_size, 3] as ResNet50 takes it.

    Bilinear resizing, then Keras' ResNet50 preprocessing: RGB to BGR, minus the ImageNet means
    (103.939, 116.779, 123.68), no scaling.
    """
    resized = tf.image.resize(images, [image_size, image_size])
    return keras.applications.resnet50.preprocess_input(resized, data_format='channels_last')


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict) -> dict[str, tf.Tensor]:
    """Transform's entry point.

    Args:
      inputs: raw features of a batch: image, string [N]; label, int64 [N].
      custom_config: 'image_size', pixels.

    Returns:
      image_xf, float32 [N, image_size, image_size, 3], and label_xf, int64 [N].
    """
    decoded = tf.map_fn(
        decode_image,
        inputs[features.IMAGE_KEY],
        fn_output_signature=tf.TensorSpec(features.IMAGE_SHAPE, tf.uint8),
    )
    return {
        features.IMAGE_XF_KEY: preprocess_images(decoded, custom_config['image_size']),
        features.LABEL_XF_KEY: tf.identity(inputs[features.LABEL_KEY]),
    }
