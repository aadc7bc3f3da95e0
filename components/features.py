"""The data contract: what a record holds and what its values mean.

Every other module takes feature keys, class names, splits and the image shape from here, so
that data, training, evaluation and serving cannot disagree. This module imports nothing.
"""

# Raw features of a tf.Example, named as TFDS names CIFAR-10's.
IMAGE_KEY = 'image'  # bytes: one PNG or JPEG of IMAGE_SHAPE
LABEL_KEY = 'label'  # int64: an index into CLASS_NAMES
ID_KEY = 'id'  # bytes, optional: where the record comes from, e.g. b'train_00042'

# What Transform makes of them.
IMAGE_XF_KEY = 'image_xf'  # float32 [image_size, image_size, 3], the backbone's own scaling
LABEL_XF_KEY = 'label_xf'  # int64 scalar

IMAGE_SHAPE = (32, 32, 3)  # height, width, channels (RGB); uint8

# The order is the official archive's (batches.meta.txt).
CLASS_NAMES = (
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
)
NUM_CLASSES = len(CLASS_NAMES)

# Training reads `train` and chooses on `val`; the model gate, and nothing else, reads `test`.
TRAIN_SPLIT = 'train'
VAL_SPLIT = 'val'
TEST_SPLIT = 'test'
SPLITS = (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT)

# What the pushed model is called with, and what it answers with.
SIGNATURE_SERVING_DEFAULT = 'serving_default'
SIGNATURE_RAW = 'serving_raw'
SIGNATURE_EXAMPLES = 'examples'
SIGNATURE_TRANSFORM = 'transform_features'
OUTPUT_LABEL = 'label'
OUTPUT_CLASS_NAME = 'class_name'
OUTPUT_PROBABILITIES = 'probabilities'

# The trained network's own answers, which the Trainer leaves beside the model, and which the served one must repeat:
# uncompressed tf.Examples with an IMAGE_KEY, bytes, and OUTPUT_PROBABILITIES, NUM_CLASSES floats.
PREDICTIONS_FILE = 'predictions.tfrecord'
