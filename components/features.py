"""What a record holds and what its values mean, for every data set.

Every other module takes feature keys, splits and the model's signatures from here, so that data, training, evaluation
and serving cannot disagree. What differs between data sets is in `components.contract`. This module imports nothing.
"""

# Raw features of a tf.Example, named as TFDS names CIFAR-10's.
IMAGE_KEY = 'image'  # bytes: one PNG or JPEG, RGB, of the contract's image_size
LABEL_KEY = 'label'  # int64: an index into the contract's class_names
ID_KEY = 'id'  # bytes, optional: of CIFAR-10 part and number in the archive, b'train_00042'; of a file its path

# Transformed features: what Transform makes of the raw ones.
IMAGE_XF_KEY = 'image_xf'  # float32 [image_size, image_size, 3], preprocessed as the backbone expects it
LABEL_XF_KEY = 'label_xf'  # int64 scalar

# Training reads `train` and chooses on `val`; the model gate, and nothing else, reads `test`.
TRAIN_SPLIT = 'train'
VAL_SPLIT = 'val'
TEST_SPLIT = 'test'
SPLITS = (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT)

# Signatures of the pushed model, and the names of their outputs.
SIGNATURE_SERVING_DEFAULT = 'serving_default'
SIGNATURE_SAFE = 'serving_default_safe'
SIGNATURE_RAW = 'serving_raw'
SIGNATURE_EXAMPLES = 'examples'
SIGNATURE_EXPLAIN = 'explain'
SIGNATURE_TRANSFORM = 'transform_features'
SIGNATURE_CLASS_NAMES = 'class_names'
OUTPUT_LABEL = 'label'
OUTPUT_CLASS_NAME = 'class_name'
OUTPUT_PROBABILITIES = 'probabilities'
OUTPUT_ERROR = 'error'  # of SIGNATURE_SAFE: a sentence for an image that cannot be decoded, '' for all others
OUTPUT_SEEN = 'seen'  # of SIGNATURE_EXPLAIN: uint8 [image_size, image_size, 3], the network's input as RGB
OUTPUT_HEAT_MAP = 'heat_map'  # of SIGNATURE_EXPLAIN: float32 [h, w], 0 to 1, where the network sees the class
NO_LABEL = -1  # of an image that SIGNATURE_SAFE cannot decode; for SIGNATURE_EXPLAIN, the predicted class

# Predictions of the trained network, which the Trainer writes beside the model and the served model must reproduce: an
# uncompressed TFRecord file of tf.Examples with IMAGE_KEY (bytes) and OUTPUT_PROBABILITIES (a float for each class).
PREDICTIONS_FILE = 'predictions.tfrecord'
