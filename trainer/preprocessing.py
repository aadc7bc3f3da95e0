"""preprocessing_fn: turns raw features into the inputs of the backbone.

TFX's Transform component calls it once and saves its graph. Training, evaluation and serving all run that graph, so
they cannot preprocess images differently.
"""

from typing import Any

import tensorflow as tf

from components import features
from components.contract import parse_contract
from components.errors import UsageError
from trainer.backbones import get_preprocess_input
from trainer.decoding import decode_image


def preprocess_images(
    images: tf.Tensor, image_size: int, *, backbone: str = 'resnet50', resize: str = 'bilinear'
) -> tf.Tensor:
    """Applies the backbone's own preprocessing and resizes the images, with TensorFlow operations only.

    All backbones' preprocessing only scales and shifts the channels, which gives the same before and after resizing.
    Before it, on the small images, the cost is negligible.

    Args:
      images: RGB images, uint8 [N, size, size, 3].
      image_size: Height and width of the result in pixels; for 'upsampling' a multiple of `size`.
      backbone: Key of `trainer.backbones.BACKBONES`. ResNet50's preprocessing reorders RGB to BGR and subtracts the
        ImageNet means (103.939, 116.779, 123.68), without scaling.
      resize: 'bilinear', which smooths (antialiases) where it makes images smaller; 'upsampling', which repeats each
        pixel as Keras' UpSampling2D does; or 'stretch', which is 'bilinear' here.

    Returns:
      float32 [N, image_size, image_size, 3].

    Raises:
      UsageError: `resize` is 'upsampling', and image_size is no multiple of `size`.
    """
    size = images.shape[1]
    if resize == 'upsampling' and image_size % size:
        raise UsageError(
            f"trainer.image_size must be a multiple of {size}, the size of the data's images, for "
            f'trainer.resize=upsampling, which repeats each pixel a whole number of times. Received: {image_size}'
        )
    method = tf.image.ResizeMethod.NEAREST_NEIGHBOR if resize == 'upsampling' else tf.image.ResizeMethod.BILINEAR
    preprocessed = get_preprocess_input(backbone)(tf.cast(images, tf.float32), data_format='channels_last')
    return tf.image.resize(preprocessed, [image_size, image_size], method=method, antialias=image_size < size)


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Preprocesses a batch; the Transform component calls this function.

    Args:
      inputs: Raw features: image, string [N]; label, int64 [N].
      custom_config: 'image_size' in pixels; 'backbone' and 'resize' with the values of TrainerConfig's settings; and
        'contract', see `components.contract.DataContract.to_dict`.

    Returns:
      image_xf, float32 [N, image_size, image_size, 3], and label_xf, int64 [N].
    """
    contract, is_stretched = parse_contract(custom_config['contract']), custom_config['resize'] == 'stretch'
    decoded = tf.map_fn(
        lambda encoded: decode_image(encoded, contract.image_size, is_stretched=is_stretched),
        inputs[features.IMAGE_KEY],
        fn_output_signature=tf.TensorSpec(contract.image_shape, tf.uint8),
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
