"""Draws pictures of three classes, of mixed sizes and forms, as people have them in folders.

The classes differ in brightness and pattern, so that grey pictures can be told apart too, and so much that a network
with random weights learns them.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ('night', 'snow', 'zebra')
_ORIENTATION = 0x0112


def _draw(class_name: str, width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Draws a picture of a class: stars on black, a bright field, or broad stripes."""
    levels = {'night': (0, 50), 'snow': (200, 256), 'zebra': (230, 256)}[class_name]
    small = random.integers(*levels, (height // 30 + 2, width // 30 + 2, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    if class_name == 'night':
        for _ in range(30):
            x, y = random.integers(0, width), random.integers(0, height)
            draw.ellipse((x, y, x + 2, y + 2), fill=(220, 220, 200))
    if class_name == 'zebra':
        stripe, phase = min(width, height) // 6, int(random.integers(0, 40))
        for left in range(-phase, width, 2 * stripe):
            draw.rectangle((left, 0, left + stripe, height), fill=(10, 10, 15))
    return image


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _save_turned(image: Image.Image) -> bytes:
    """A JPEG whose camera was held on its side."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    return _save(image.transpose(Image.Transpose.ROTATE_90), 'JPEG', quality=92, exif=exif)


def _save_transparent(image: Image.Image) -> bytes:
    image.putalpha(200)
    return _save(image, 'PNG')


FORMS: dict[str, Callable[[Image.Image], bytes]] = {
    'photo.jpg': lambda image: _save(image, 'JPEG', quality=92),
    'drawing.png': lambda image: _save(image, 'PNG'),
    'web.webp': lambda image: _save(image, 'WEBP', quality=90),
    'grey.jpeg': lambda image: _save(image.convert('L'), 'JPEG'),
    'transparent.png': _save_transparent,
    'turned.JPG': _save_turned,
    'palette.gif': lambda image: _save(image.quantize(64), 'GIF'),
}
"""The end of a file's name, and how such a file is written."""


def draw_picture(class_name: str, number: int) -> tuple[str, bytes]:
    """Draws a picture of a class, and returns the name and the bytes of its file; equal numbers give equal pictures."""
    random = np.random.default_rng([CLASSES.index(class_name), number])
    width, height = (int(side) for side in random.integers(260, 700, 2))
    end = list(FORMS)[number % len(FORMS)]
    return f'{number:03d}_{end}', FORMS[end](_draw(class_name, width, height, random))


def write_pictures(folder: Path, count: int, first: int = 0) -> None:
    """Writes `count` pictures of each class as FOLDER/CLASS/FILE, beginning with the number `first`."""
    for class_name in CLASSES:
        (folder / class_name).mkdir(parents=True)
        for number in range(first, first + count):
            name, content = draw_picture(class_name, number)
            (folder / class_name / name).write_bytes(content)
