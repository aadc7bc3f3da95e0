"""Decoding and preprocessing: the code, and the graph that Transform saves of it."""

import io
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from PIL import Image, ImageOps

from components.data import cifar10
from components.errors import UsageError
from tests.conftest import IMAGE_SIZE
from trainer.backbones import BACKBONES
from trainer.decoding import decode_image, read_orientation
from trainer.preprocessing import preprocess_images

SIZE = cifar10.CONTRACT.image_size


def save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode(image: np.ndarray, kind: str = 'PNG') -> bytes:
    return save(Image.fromarray(image), kind)


def test_png_of_the_contract_size_is_decoded_exactly(images):
    np.testing.assert_array_equal(decode_image(encode(images[0]), SIZE).numpy(), images[0])


@pytest.mark.parametrize('size', [(64, 64), (300, 200), (8, 8), (1, 40)])
def test_images_of_other_sizes_are_resized_to_the_contract_size(size):
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = 250
    decoded = decode_image(encode(image), SIZE).numpy()
    assert decoded.shape == (32, 32, 3)
    assert decoded.dtype == np.uint8
    assert (decoded == [250, 0, 0]).all()


def test_a_large_image_is_averaged_not_sampled(images):
    enlarged = np.repeat(np.repeat(images[0], 4, axis=0), 4, axis=1)
    decoded = decode_image(encode(enlarged), SIZE).numpy()
    assert np.abs(decoded.astype(int) - images[0]).mean() < 12


def draw_colors() -> np.ndarray:
    """An image of 64 colours in areas of 4x4 pixels, so that JPEG changes few: uint8 [32, 32, 3]."""
    colors = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return colors.repeat(4, 0).repeat(4, 1)


def interlace(image: np.ndarray) -> bytes:
    """Encodes an interlaced PNG, which Pillow reads but does not write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b''.join(b'\0' + row.tobytes() for x, y, dx, dy in passes for row in image[y::dy, x::dx])

    def make_chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', image.shape[1], image.shape[0], 8, 2, 0, 0, 1)
    chunks = make_chunk(b'IHDR', header) + make_chunk(b'IDAT', zlib.compress(rows)) + make_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


COLORS = draw_colors()
RGB, GREY = Image.fromarray(COLORS), Image.fromarray(COLORS[..., 0])
RGBA = Image.fromarray(np.dstack([COLORS, np.full((32, 32), 100, np.uint8)]))
FEW = RGB.quantize(64)  # with a palette
TURNED = Image.Exif()
TURNED[0x0112] = 3  # orientation: upside down

# By form: the file, the image that it should be, and how far it may be off. docs/serving.md has the same list.
FORMS = {
    'PNG': (save(RGB, 'PNG'), RGB, 0),
    'grey PNG': (save(GREY, 'PNG'), GREY, 0),
    'PNG with alpha, which is dropped': (save(RGBA, 'PNG'), RGB, 0),
    'grey PNG with alpha': (save(Image.merge('LA', (GREY, GREY)), 'PNG'), GREY, 0),
    'PNG with a palette': (save(FEW, 'PNG'), FEW, 0),
    'black and white PNG': (save(GREY.convert('1'), 'PNG'), GREY.convert('1'), 0),
    'PNG of 16 bits': (tf.io.encode_png(COLORS.astype(np.uint16) * 257).numpy(), RGB, 0),
    'grey PNG of 16 bits': (save(Image.fromarray(COLORS[..., 0].astype(np.uint16) * 257), 'PNG'), GREY, 0),
    'interlaced PNG': (interlace(COLORS), RGB, 0),
    'JPEG': (save(RGB, 'JPEG', quality=100, subsampling=0), RGB, 20),
    'progressive JPEG': (save(RGB, 'JPEG', quality=100, subsampling=0, progressive=True), RGB, 20),
    'JPEG that is upside down': (save(RGB.rotate(180), 'JPEG', quality=100, subsampling=0, exif=TURNED), RGB, 20),
    'grey JPEG': (save(GREY, 'JPEG', quality=100), GREY, 20),
    'JPEG with CMYK': (save(RGB.convert('CMYK'), 'JPEG', quality=100), RGB, 20),
    'GIF': (save(FEW, 'GIF'), FEW, 0),
    'first frame of a GIF': (save(FEW, 'GIF', save_all=True, append_images=[FEW.rotate(90)]), FEW, 0),
    'BMP': (save(RGB, 'BMP'), RGB, 0),
    'grey BMP': (save(GREY, 'BMP'), GREY, 0),
    'BMP with alpha': (save(RGBA, 'BMP'), RGB, 0),
    'WebP': (save(RGB, 'WEBP', lossless=True), RGB, 0),
    'WebP with alpha, which is dropped': (save(RGBA, 'WEBP', lossless=True, exact=True), RGB, 0),
}


@pytest.mark.parametrize('form', FORMS)
def test_each_form_of_image_is_decoded_to_rgb(form):
    encoded, image, tolerance = FORMS[form]
    expected = np.asarray(image.convert('RGB')).astype(int)
    assert np.abs(decode_image(encoded, SIZE).numpy() - expected).max() <= tolerance


def test_the_palette_of_a_bmp_is_not_read_as_docs_serving_says():
    assert np.abs(decode_image(save(FEW, 'BMP'), SIZE).numpy().astype(int) - COLORS).max() > 100


REFUSED = {
    'nothing': b'',
    'TIFF': save(RGB, 'TIFF'),
    'ICO': save(RGB, 'ICO'),
    'animated WebP': save(RGB, 'WEBP', save_all=True, append_images=[RGB.rotate(90)]),
    'AVIF': b'\0\0\0\x1cftypavif' + bytes(100),
    'HEIC': b'\0\0\0\x1cftypheic' + bytes(100),
    'SVG': b'<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"/>',
    'a PNG that is cut off': save(RGB, 'PNG')[:-60],
    'a JPEG that is cut off': save(RGB, 'JPEG')[:-60],
}


@pytest.mark.parametrize('form', REFUSED)
def test_what_tensorflow_cannot_decode_is_refused(form):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(REFUSED[form], SIZE)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('order', ['<', '>'])
def test_a_photograph_is_turned_as_its_exif_orientation_says(orientation, order):
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = 'the maker of the camera', orientation
    stored = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1))
    encoded = save(stored, 'JPEG', quality=100, subsampling=0, exif=exif)
    assert int(read_orientation(tf.constant(encoded))) == orientation
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    expected = decode_image(save(upright, 'PNG'), 40).numpy().astype(int)
    assert np.abs(decode_image(encoded, 40).numpy() - expected).max() <= 20


DAMAGED = {
    'nothing': b'',
    'only the mark of a JPEG': b'\xff\xd8\xff',
    'the mark of Exif at the end': b'\xff\xd8\xff\xe1\0\0Exif\0\0',
    'a directory far behind the end': b'\xff\xd8\xff\xe1\0\0Exif\0\0II*\0\xff\xff\xff\xff',
    'more entries than bytes': b'\xff\xd8\xff\xe1\0\0Exif\0\0II*\0\x08\0\0\0\xff\xff' + bytes(10),
    'an orientation of 9': b'\xff\xd8\xff\xe1\0\0Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x09\0\0',
    'Exif in something that is no JPEG': b'GIF89aExif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0',
}


@pytest.mark.parametrize('kind', DAMAGED)
def test_damaged_exif_is_no_orientation(kind):
    assert int(read_orientation(tf.constant(DAMAGED[kind]))) == 1


def draw_photograph(width: int, height: int) -> Image.Image:
    """A smooth image with a different colour in each place."""
    small = np.random.default_rng(2).integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize('shape', [(640, 480), (480, 640), (300, 1200), (250, 251), (100, 90), (96, 400)])
def test_the_middle_of_an_image_is_kept_and_its_shape_too(shape):
    image, size = draw_photograph(*shape), 96
    scale = size / min(shape)
    resized = image.resize([round(side * scale) for side in shape], Image.Resampling.BILINEAR)  # antialiased
    left, top = ((side - size) // 2 for side in resized.size)
    expected = np.asarray(resized.crop((left, top, left + size, top + size))).astype(int)
    assert np.abs(decode_image(save(image, 'PNG'), size).numpy() - expected).max() <= 2


def test_stretching_squeezes_the_whole_image_into_the_square():
    image = draw_photograph(320, 80)
    expected = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode_image(save(image, 'PNG'), 96, is_stretched=True).numpy() - expected).max() <= 2


def test_a_very_long_image_takes_no_more_memory_than_its_own_pixels():
    assert decode_image(save(Image.new('RGB', (1, 60_000), (9, 8, 7)), 'PNG'), 256).numpy().tolist()[5][5] == [9, 8, 7]


def test_bytes_that_are_not_an_image_are_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match='Unknown image file format'):
        decode_image(b'not an image', SIZE)


def test_the_default_preprocessing_is_resnet50s_caffe_mode():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[...] = (10, 20, 30)
    result = preprocess_images(tf.constant(image), 64).numpy()
    assert result.shape == (1, 64, 64, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0, 5, 5], [30 - 103.939, 20 - 116.779, 10 - 123.68], rtol=1e-5)


def apply_caffe(rgb):
    return rgb[..., ::-1] - np.array([103.939, 116.779, 123.68])


def apply_torch(rgb):
    return (rgb / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


FORMULAS = {
    'resnet50': apply_caffe,
    'resnet101': apply_caffe,
    'vgg16': apply_caffe,
    'inception_v3': lambda rgb: rgb / 127.5 - 1,
    'densenet121': apply_torch,
}


@pytest.mark.parametrize('backbone', BACKBONES)
def test_each_backbone_has_the_preprocessing_its_weights_were_trained_with(backbone, images):
    result = preprocess_images(tf.constant(images), 32, backbone=backbone)
    np.testing.assert_allclose(result, FORMULAS[backbone](images.astype('float64')), rtol=1e-4, atol=1e-4)


def test_upsampling_to_no_multiple_of_the_size_is_an_error(images):
    with pytest.raises(UsageError, match='must be a multiple of 32, the size of the data'):
        preprocess_images(tf.constant(images), 100, resize='upsampling')


def test_making_images_smaller_smooths_them():
    checkered = np.indices((96, 96)).sum(axis=0)[None, ..., None].repeat(3, -1) % 2 * 255
    result = preprocess_images(tf.constant(checkered, tf.uint8), 32, backbone='inception_v3').numpy()
    assert np.abs(result[:, 2:-2, 2:-2]).max() < 0.1  # grey


def test_upsampling_is_keras_upsampling2d(images):
    result = preprocess_images(tf.constant(images), 96, backbone='inception_v3', resize='upsampling').numpy()
    upsampled = keras.layers.UpSampling2D(3)(images.astype('float32'))
    np.testing.assert_allclose(result, np.array(upsampled) / 127.5 - 1, atol=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    ('backbone', 'image_size', 'resize'),
    [
        ('resnet50', IMAGE_SIZE, 'bilinear'),
        ('inception_v3', 75, 'bilinear'),
        ('densenet121', 64, 'upsampling'),
    ],
)
def test_the_saved_graph_computes_what_the_code_computes(backbone, image_size, resize, make_transform_graph, images):
    graph = make_transform_graph(backbone, image_size, resize)
    layer = tft.TFTransformOutput(str(graph)).transform_features_layer()
    result = layer({'image': tf.constant([encode(image) for image in images])})
    expected = preprocess_images(tf.constant(images), image_size, backbone=backbone, resize=resize)
    np.testing.assert_allclose(result['image_xf'], expected, rtol=1e-5, atol=1e-5)
    assert set(result) == {'image_xf'}
