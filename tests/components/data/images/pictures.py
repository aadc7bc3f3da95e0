"""Pictures for the tests, drawn from a seed."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def draw(seed: int, size: tuple[int, int] = (48, 40), mode: str = 'RGB') -> Image.Image:
    """Draws smooth colours, so that a resized or a compressed picture is still like the first one."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 4), dtype=np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC)
    return image if mode == 'RGBA' else image.convert('RGB').convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_wide_png(channels: int, size: tuple[int, int] = (48, 40), seed: int = 0) -> bytes:
    """Encodes noise as a PNG with 16 bits a channel, which Pillow writes only in grey; 1 to 4 channels."""

    def pack(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    pixels = np.random.default_rng(seed).integers(0, 2**16, (size[1], size[0] * channels)).astype('>u2')
    rows = b''.join(b'\0' + row.tobytes() for row in pixels)
    header = struct.pack('>IIBBBBB', *size, 16, color_type, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + pack(b'IHDR', header) + pack(b'IDAT', zlib.compress(rows)) + pack(b'IEND', b'')


def declare_png(width: int, height: int) -> bytes:
    """Makes a PNG of one pixel that declares more: a decompression bomb."""
    content = bytearray(encode(draw(0, (1, 1)), 'PNG'))
    content[16:24] = struct.pack('>II', width, height)
    content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
    return bytes(content)


def write_folder(folder: Path, classes: tuple[str, ...] = ('cat', 'cow', 'dog'), count: int = 10) -> Path:
    """Writes FOLDER/CLASS/NUMBER.jpg with `count` different pictures of each class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            draw(1000 * label + number).save(folder / name / f'{number:03d}.jpg')
    return folder
