"""What a version keeps of its test images."""

import numpy as np
import pytest

from components.image_statistics import PROPERTIES
from components.serving.reference import CONFIDENCE, make_reference, read_reference, write_reference


def test_a_reference_is_a_few_kilobytes_and_is_read_as_it_was_written(tmp_path):
    random = np.random.default_rng(0)
    measured = random.normal(100, 20, (2_000, len(PROPERTIES)))
    probabilities = random.dirichlet(np.ones(10), 2_000).astype(np.float32)
    reference = make_reference(measured, probabilities)
    write_reference(tmp_path / 'reference.json', reference)
    assert read_reference(tmp_path / 'reference.json') == reference
    assert (tmp_path / 'reference.json').stat().st_size < 10_000
    assert set(reference.quantiles) == {*PROPERTIES, CONFIDENCE}
    assert reference.quantiles['brightness'][50] == pytest.approx(np.median(measured[:, 0]), abs=1e-3)
    assert reference.quantiles[CONFIDENCE][100] == pytest.approx(probabilities.max(), abs=1e-3)
    assert reference.predicted == tuple(np.bincount(probabilities.argmax(1), minlength=10))


def test_images_without_numbers_are_left_out():
    measured = np.full((3, len(PROPERTIES)), 7.0)
    measured[1] = np.nan
    probabilities = np.full((3, 10), np.nan, np.float32)
    probabilities[0] = np.eye(10)[4]
    reference = make_reference(measured, probabilities)
    assert set(reference.quantiles['contrast']) == {7.0}
    assert (sum(reference.predicted), reference.predicted[4]) == (1, 1)
    assert make_reference(measured[:0], probabilities[:0]).quantiles == {}


@pytest.mark.parametrize('text', ['', '{', '[]', '{"count": 3}', '{"count": 1, "quantiles": 4, "predicted": []}'])
def test_a_damaged_reference_is_refused(tmp_path, text):
    (tmp_path / 'reference.json').write_text(text)
    with pytest.raises(ValueError, match='Error: '):
        read_reference(tmp_path / 'reference.json')
