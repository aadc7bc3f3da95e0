"""preprocessing_fn: turns raw features into the inputs of the backbone.

TFX's Transform component calls it once and saves its graph. Training, evaluation and serving all run that graph, so
they cannot preprocess images differently.
"""

from typing import Any

import tensorflow as tf

from components import features
from trainer.backbones import get_preprocess_input


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one PNG or JPEG of any size to uint8 [32, 32, 3].

    Larger and smaller images are resized (antialiased) to the size of the training images, because a model that has
    only seen upscaled 32-pixel images is worse at sharp ones. Grey images become RGB.

    Args:
      encoded: PNG or JPEG bytes, string scalar.

    Raises:
      tf.errors.InvalidArgumentError: When run, if the bytes are not an image that TensorFlow can decode.
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
    """Applies the backbone's own preprocessing and resizes the images, with TensorFlow operations only.

    All backbones' preprocessing only scales and shifts the channels, which gives the same before and after resizing.
    Before it, on the small images, the cost is negligible.

    Args:
      images: RGB images, uint8 [N, 32, 32, 3].
      image_size: Height and width of the result in pixels; for 'upsampling' a multiple of 32.
      backbone: Key of `trainer.backbones.BACKBONES`. ResNet50's preprocessing reorders RGB to BGR and subtracts the
        ImageNet means (103.939, 116.779, 123.68), without scaling.
      resize: 'bilinear', or 'upsampling', which repeats each pixel as Keras' UpSampling2D does.

    Returns:
      float32 [N, image_size, image_size, 3].
    """
    method = {'bilinear': tf.image.ResizeMethod.BILINEAR, 'upsampling': tf.image.ResizeMethod.NEAREST_NEIGHBOR}[resize]
    preprocessed = get_preprocess_input(backbone)(tf.cast(images, tf.float32), data_format='channels_last')
    return tf.image.resize(preprocessed, [image_size, image_size], method=method)


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Preprocesses a batch; the Transform component calls this function.

    Args:
      inputs: Raw features: image, string [N]; label, int64 [N].
      custom_config: 'image_size' in pixels; 'backbone' and 'resize' with the values of TrainerConfig's settings.

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
