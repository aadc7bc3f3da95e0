"""What a run looks at before it begins: the classes that the gate names, and whether the preset fits the data."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import UsageError
from pipeline.config import FEW_IMAGES, PRESETS, PipelineConfig
from pipeline.local import _check_classes, _suggest_preset, run
from pipeline.overrides import apply_overrides


def make_config(preset: str, folder: Path, manifest: dict | None = None, *settings: str) -> PipelineConfig:
    """Makes a run's config whose data is in a folder with this manifest."""
    if manifest is not None:
        (folder / 'manifest.json').write_text(json.dumps(manifest))
    return apply_overrides(PRESETS[preset](str(folder / 'root')), [f'data={folder}', *settings])


@pytest.mark.parametrize(
    ('preset', 'count', 'is_suggested'),
    [
        ('folder', FEW_IMAGES - 1, True),
        ('cifar10-fast', 48, True),
        ('folder', FEW_IMAGES, False),
        ('small', 48, False),
        ('sample', 48, False),
    ],
)
def test_the_preset_for_few_images_is_suggested_where_there_are_few(tmp_path, preset, count, is_suggested):
    config = make_config(preset, tmp_path, {'counts': {'train': count, 'val': 10, 'test': 10}})
    sentence = f'{count} training images are few; --preset small is made for fewer than 1,000'
    assert _suggest_preset(config) == (sentence if is_suggested else '')


def test_nothing_is_suggested_where_nobody_knows_how_many_images_there_are(tmp_path):
    assert _suggest_preset(make_config('folder', tmp_path)) == ''


CONTRACT = {'class_names': ['ant', 'bee'], 'image_size': 256, 'is_square': False}


@pytest.mark.parametrize(
    ('manifest', 'class_names'),
    [({'contract': CONTRACT}, ()), ({}, ('ant', 'bee')), (None, ('ant', 'bee'))],
    ids=['manifest', 'file before the manifest', 'file'],
)
def test_a_floor_for_a_class_that_the_data_does_not_have_is_refused_before_the_run(tmp_path, manifest, class_names):
    config = replace(
        make_config('folder', tmp_path, manifest, 'gate.recall_by_class=bees=0.9'), class_names=class_names
    )
    with pytest.raises(UsageError, match=r"the class 'bees', .* Did you mean bee\? It has ant, bee\.$"):
        _check_classes(config)
    _check_classes(apply_overrides(config, ['gate.recall_by_class=bee=0.9']))


def test_classes_that_the_data_does_not_name_are_left_to_the_evaluator(tmp_path):
    _check_classes(make_config('folder', tmp_path, None, 'gate.recall_by_class=bee=0.9'))


def test_a_run_that_needs_packages_which_are_not_installed_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr('trainer.config.find_spec', lambda name: None)
    config = make_config('sample', tmp_path, None, 'export.onnx=true')
    with pytest.raises(UsageError, match=r'export\.onnx=true needs packages that are not installed here: onnx, '):
        run(config, None, verbose=False)
    assert not Path(config.root).exists()


def test_each_preset_has_a_pipeline_of_its_own_name():
    names = [preset('ROOT').name for preset in PRESETS.values()]
    assert len(set(names)) == len(PRESETS)
