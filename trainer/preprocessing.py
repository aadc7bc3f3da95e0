"""preprocessing_fn: from raw features to what the backbone takes.

TFX Transform calls it once and saves its graph; training, evaluation and serving all run that graph, so that
they cannot differ.
"""

import tensorflow as tf

from components import features
from trainer.backbones import get_preprocess_input


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


def preprocess_images(
    images: tf.Tensor, image_size: int, *, backbone: str = 'resnet50', resize: str = 'bilinear'
) -> tf.Tensor:
    """Applies the backbone's own preprocessing, then resizes; TensorFlow ops only, so that it can be traced.

    Every preprocessing here is a scale and a shift by channel, which commute with resizing; done on the small image
    they cost next to nothing.

    Args:
      images: uint8 [N, 32, 32, 3], RGB.
      image_size: pixels; for 'upsampling' a multiple of 32.
      backbone: key of `trainer.backbones.BACKBONES`. ResNet50's preprocessing is RGB to BGR, minus the ImageNet
        means (103.939, 116.779, 123.68), no scaling.
      resize: 'bilinear', or 'upsampling': each pixel repeated, as Keras' UpSampling2D does.

    Returns:
      float32 [N, image_size, image_size, 3].
    """
    method = {'bilinear': tf.image.ResizeMethod.BILINEAR, 'upsampling': tf.image.ResizeMethod.NEAREST_NEIGHBOR}[resize]
    preprocessed = get_preprocess_input(backbone)(tf.cast(images, tf.float32), data_format='channels_last')
    return tf.image.resize(preprocessed, [image_size, image_size], method=method)


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict) -> dict[str, tf.Tensor]:
    """Transform's entry point.

    Args:
      inputs: raw features of a batch: image, string [N]; label, int64 [N].
      custom_config: 'image_size', pixels; 'backbone' and 'resize', as TrainerConfig has them.

    Returns:
      image_xf, float32 [N, image_size, image_size, 3], and label_xf, int64 [N].
    """
    decoded = tf.map_fn(
        decode_image,
        inputs[features.IMAGE_KEY],
        fn_output_signature=tf.TensorSpec(features.IMAGE_SHAPE, tf.uint8),
    )
    image_xf = preprocess_images(
        decoded,
        custom_config['image_size'],
        backbone=custom_config['backbone'],
        resize=custom_config['resize'],
    )
    return {
        features.IMAGE_XF_KEY: image_xf,
        features.LABEL_XF_KEY: tf.identity(inputs[features.LABEL_KEY]),
    }
