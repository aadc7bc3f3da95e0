"""Slices by what the images look like: which images are in a quarter, and what the gate says of a weak one."""

import io

import numpy as np
import pytest
from PIL import Image

from components.baseline import BaselineInfo
from components.image_statistics import measure_images
from components.model_gate.config import GateConfig
from components.model_gate.slices import measure_slices, read_slices, write_slices
from components.model_gate.verdict import judge
from components.reasons import list_broken
from tests.components.model_gate.test_verdict import NAMES, make_metrics


def make_image(brightness: int, side: int = 8) -> bytes:
    """Makes a grey image with a little noise, so that contrast and sharpness differ too."""
    noise = np.random.default_rng(brightness).integers(-brightness // 9 - 1, brightness // 9 + 2, (side, side, 1))
    pixels = np.clip(brightness + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'PNG')
    return out.getvalue()


SIZE = 32  # to which the images are resized before they are measured
IMAGES = [make_image(brightness) for brightness in range(200, 0, -5)]  # 40, the darkest last
RIGHT = np.arange(40) < 33  # seven of the ten darkest are wrong


def test_planted_dark_images_that_are_wrong_are_the_weakest_quarter(tmp_path):
    write_slices(tmp_path, measure_slices(measure_images([*IMAGES, b'no image'], SIZE), np.append(RIGHT, False)))
    slices = read_slices(tmp_path)
    assert [each.count for each in slices] == [10] * 12, 'three properties; the images do not differ in size'
    dark, *rest = [each for each in slices if each.property == 'brightness']
    assert (dark.get_name(), dark.right, [each.right for each in rest]) == ('brightness_1_of_4', 3, [10, 10, 10])
    assert 0 < dark.low < dark.high < rest[0].low


def test_images_of_several_sizes_have_slices_by_size():
    images = [make_image(100, side) for side in range(4, 12)]
    sizes = [each for each in measure_slices(measure_images(images, SIZE), np.ones(8, bool)) if each.property == 'size']
    assert [(each.low, each.high) for each in sizes] == [(16, 25), (36, 49), (64, 81), (100, 121)]


def test_the_gate_refuses_a_weak_slice_only_where_it_is_asked_to():
    slices = measure_slices(measure_images(IMAGES, SIZE), RIGHT)
    free = judge(make_metrics(0.93), GateConfig(), BaselineInfo(), NAMES, slices)
    assert free.is_blessed
    assert free == judge(make_metrics(0.93), GateConfig(), BaselineInfo(), NAMES), 'off by default'
    verdict = judge(make_metrics(0.93), GateConfig(slices=0.8), BaselineInfo(), NAMES, slices)
    assert not verdict.is_blessed
    broken = [reason for reason in verdict.reasons if reason.slice == 'brightness_1_of_4']
    assert [(each.metric, each.value, each.bound, each.count) for each in broken] == [('slice_accuracy', 0.3, 0.8, 10)]
    assert any(
        sentence.startswith('accuracy of the quarter with brightness ') and sentence.endswith(' 0.300 < 0.800 on 10')
        for sentence in list_broken(verdict.reasons)
    )


@pytest.mark.parametrize('images', [[], [b'no image']])
def test_nothing_is_sliced_where_no_image_can_be_decoded(images):
    assert measure_slices(measure_images(images, SIZE), np.zeros(len(images), bool)) == ()
