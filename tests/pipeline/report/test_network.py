"""What the report asks the exported model, and what it says where the model cannot answer."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.data import cifar10
from components.model_gate.predictions import read_records, write_predictions
from pipeline.report.folders import Folders
from pipeline.report.network import explain_images
from pipeline.report.report import make_report

COUNT = 40  # more than a request holds
SIZE = 48  # pixels of the network's input


def save_model(folder: Path, signature: str) -> Path:
    """Saves a model that saw an image in one colour, its label, and looked at one place, its label."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)])
    def explain(image: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = tf.map_fn(tf.io.decode_png, image, fn_output_signature=tf.TensorSpec([32, 32, 3], tf.uint8))
        seen = tf.cast(label, tf.uint8)[:, tf.newaxis, tf.newaxis, tf.newaxis] * tf.ones([1, SIZE, SIZE, 3], tf.uint8)
        heat_map = tf.reshape(tf.one_hot(label, 9), [-1, 3, 3])
        return {'seen': seen, 'heat_map': heat_map + 0 * tf.cast(decoded[:, :3, :3, 0], tf.float32)}

    tf.saved_model.save(tf.Module(), str(folder), {signature: explain.get_concrete_function()})
    return folder


def draw_png(index: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full(cifar10.CONTRACT.image_shape, index, np.uint8)).save(out, 'PNG')
    return out.getvalue()


def test_the_answers_are_in_the_order_of_the_images(tmp_path):
    labels = [index % 9 for index in range(COUNT)]
    found = explain_images(save_model(tmp_path, 'explain'), [draw_png(index) for index in range(COUNT)], labels)
    assert (found.seen.shape, found.seen.dtype) == ((COUNT, SIZE, SIZE, 3), np.uint8)
    assert found.seen[:, 0, 0, 0].tolist() == labels
    assert found.heat_maps.reshape(COUNT, 9).argmax(axis=1).tolist() == labels


def make_run(root: Path, signature: str) -> Folders:
    """A run whose model always answers bird, and is wrong about two images, of which one is broken."""
    names = ('Trainer.model', 'ImportExampleGen.examples', 'Evaluator.evaluation')
    artifacts = {name: root / name for name in names}
    split = artifacts['ImportExampleGen.examples'] / 'Split-test'
    for folder in (*artifacts.values(), split):
        folder.mkdir()
    save_model(artifacts['Trainer.model'] / 'Format-Serving', signature)
    with tf.io.TFRecordWriter(str(split / 'data.gz'), 'GZIP') as writer:
        for index, (image, label) in enumerate([(draw_png(0), 2), (draw_png(1), 3), (b'\x89PNG broken', 4)]):
            example = tf.train.Example()
            example.features.feature['image'].bytes_list.value.append(image)
            example.features.feature['label'].int64_list.value.append(label)
            example.features.feature['id'].bytes_list.value.append(f'test_{index}'.encode())
            writer.write(example.SerializeToString())
    records = read_records([str(split / '*.gz')])
    bird = np.tile(np.where(np.arange(10) == 2, 0.91, 0.01).astype(np.float32), (3, 1))
    write_predictions(artifacts['Evaluator.evaluation'] / 'test_predictions.npz', records, bird)
    return Folders(artifacts)


MISSING = 'no exported model with the signature explain'


@pytest.mark.parametrize('signature', ['explain', 'serving_default'])
def test_the_page_has_what_the_model_shows_or_says_that_it_cannot(signature, tmp_path):
    make_report(make_run(tmp_path, signature), tmp_path / 'report.html')
    page = (tmp_path / 'report.html').read_text()
    is_shown = signature == 'explain'
    assert page.count('Where the network saw bird in image') == is_shown
    assert (f'at its input size of {SIZE} x {SIZE} pixels' in page) == is_shown
    assert (MISSING in page) == (not is_shown)
