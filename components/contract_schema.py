"""The curated schema of the raw records, as far as it depends on the data contract, and the contract read from it.

`components.features` describes the records in words. CuratedSchemaGen writes the schema; Transform, the Trainer and the
data gate read the contract from it. The class names are a string domain of the schema, in the order of the labels, and
the image's size is a tag of the feature, because a schema of TensorFlow Metadata has no field for it.
"""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components import features
from components.contract import DataContract
from components.data import cifar10

TEMPLATE_FILE = Path(__file__).with_name('schema.pbtxt')
SCHEMA_NAME = 'schema.pbtxt'  # TFX's name for the only file of a Schema artifact
_CLASS_NAMES = 'class_names'
_SIZE, _SQUARE = 'image_size=', 'square'  # tags of the image

# An image larger than this is an anomaly. Pixels without compression have 3 bytes; the rest is for small images, and
# for long ones, whose longer side is several times the shorter one.
_SMALLEST_BYTE_LIMIT = 65_536
_BYTES_PER_SQUARE_PIXEL = 16


def make_schema(contract: DataContract) -> schema_pb2.Schema:
    """Makes the schema of raw records with this contract."""
    schema = text_format.Parse(TEMPLATE_FILE.read_text(), schema_pb2.Schema())
    image, label, _ = schema.feature
    byte_limit = max(_SMALLEST_BYTE_LIMIT, _BYTES_PER_SQUARE_PIXEL * contract.image_size**2)
    image.image_domain.max_image_byte_size = byte_limit
    image.annotation.tag.append(f'{_SIZE}{contract.image_size}')
    if contract.is_square:
        image.annotation.tag.append(_SQUARE)
    label.int_domain.max = contract.num_classes - 1
    schema.string_domain.add(name=_CLASS_NAMES, value=contract.class_names)
    return schema


def read_contract(schema: schema_pb2.Schema) -> DataContract:
    """Reads the contract that `make_schema` wrote into a schema; one of an earlier release is CIFAR-10's."""
    if not schema.string_domain:
        return cifar10.CONTRACT
    (names,) = (domain.value for domain in schema.string_domain if domain.name == _CLASS_NAMES)
    tags = next(feature.annotation.tag for feature in schema.feature if feature.name == features.IMAGE_KEY)
    (size,) = (int(tag.removeprefix(_SIZE)) for tag in tags if tag.startswith(_SIZE))
    return DataContract(tuple(names), size, _SQUARE in tags)


def load_contract(schema_file: str | Path) -> DataContract:
    """Reads the contract from a Schema artifact's file."""
    text = Path(schema_file).read_text(encoding='utf-8')
    return read_contract(text_format.Parse(text, schema_pb2.Schema()))
