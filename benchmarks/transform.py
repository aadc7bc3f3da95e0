"""The Transform step: ours, which writes only the graph, against TFX's default (the rival).

The default also computes statistics and materializes every image, that is, writes it in its preprocessed form.

    python -m benchmarks.transform [--rounds N] [--images N]

Both sides are TFX's own component and executor on the same examples with the same preprocessing_fn. Ours is the
component that `pipeline.create_pipeline` makes, with whatever parameters it has there; the rival has the defaults.
"""

import functools
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig

_DESCRIPTION = "The Transform step: graph only (ours) against TFX's default, materialized images and statistics"


def make_inputs(config: 'PipelineConfig') -> dict[str, list[Any]]:
    """Runs ImportExampleGen and CuratedSchemaGen; returns {'examples': [artifact], 'schema': [artifact]}."""
    from tfx.components import ImportExampleGen
    from tfx.orchestration import metadata, pipeline
    from tfx.proto import example_gen_pb2

    from components import features
    from components.schema import CuratedSchemaGen
    from pipeline.config import Layout
    from pipeline.runner import LocalRunner

    found: dict[str, Any] = {}
    layout = Layout(config.root)
    splits = [example_gen_pb2.Input.Split(name=split, pattern=f'{split}/*') for split in features.SPLITS]
    example_gen = ImportExampleGen(input_base=config.data, input_config=example_gen_pb2.Input(splits=splits))
    graph = pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(layout.artifacts),
        components=[
            example_gen,
            CuratedSchemaGen(example_gen.outputs['examples']),
        ],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(layout.metadata)),
        beam_pipeline_args=config.beam.options,
    )
    LocalRunner(lambda result: found.update(result.outputs)).run(graph)
    return {key: list(found[key]) for key in ('examples', 'schema')}


def make_sides(config: 'PipelineConfig') -> dict[str, Any]:
    """Makes the two Transform components: that of our pipeline, and one with TFX's default for every parameter."""
    from tfx.components import Transform

    from pipeline.pipeline import PREPROCESSING_FN, create_pipeline

    components = {component.id: component for component in create_pipeline(config).components}
    stock = Transform(
        examples=components['ImportExampleGen'].outputs['examples'],
        schema=components['CuratedSchemaGen'].outputs['schema'],
        preprocessing_fn=PREPROCESSING_FN,
        custom_config=json.loads(components['Transform'].exec_properties['custom_config']),
    )
    return {'ours': components['Transform'], 'rival': stock}


def run_transform(component: Any, inputs: dict[str, list[Any]], out: Path, beam_args: list[str]) -> None:
    """Runs a Transform component once, as TFX's launcher would, and replaces the folder `out`.

    The executor is TFX's, which ours only gives the data contract.
    """
    from components.transform import Executor

    shutil.rmtree(out, ignore_errors=True)
    outputs = {}
    for key, channel in component.outputs.items():
        artifact = channel.type()
        artifact.uri = str(out / key)
        Path(artifact.uri).mkdir(parents=True)
        outputs[key] = [artifact]
    context = Executor.Context(beam_pipeline_args=beam_args, tmp_dir=str(out / '.tmp'), unique_id='')
    Executor(context).Do(inputs, outputs, component.spec.exec_properties)


def measure(folder: Path, images: int, rounds: int) -> harness.Result:
    """Prepares the examples under `folder` and measures both sides; adds the bytes that they leave on disk."""
    with harness.divert_stdout():
        from pipeline.config import PipelineConfig

        sentence = harness.write_records(folder / 'data', images)
        config = PipelineConfig(name='benchmark', root=str(folder), data=str(folder / 'data'))
        inputs = make_inputs(config)
        runs = {
            name: functools.partial(run_transform, component, inputs, folder / name, config.beam.options)
            for name, component in make_sides(config).items()
        }
    size = config.trainer.get_image_size()
    result = harness.run_benchmark(
        f'{_DESCRIPTION}; {sentence} at {size} px',
        runs['ours'],
        runs['rival'],
        rounds=rounds,
        images=images,
        image_size=size,
    )
    used = {f'bytes_{name}': harness.measure_bytes(folder / name) for name in runs}
    return {**result, **used, 'bytes_ratio': used['bytes_rival'] / used['bytes_ours']}


def main() -> int:
    """Runs the command line and returns the exit code."""
    args = harness.build_parser(_DESCRIPTION, images=500).parse_args()
    print(harness.describe_machine(), flush=True)
    with harness.make_folder() as folder:
        result = measure(folder, args.images, args.rounds)
    print(
        f'  on disk: ours {result["bytes_ours"]:,} bytes, rival {result["bytes_rival"]:,} bytes, '
        f'rival / ours = {result["bytes_ratio"]:,.0f}\n'
        f'  the rival took {result["rival"] / args.images:.4f} s (including its start) and '
        f'{result["bytes_rival"] / args.images:,.0f} bytes per image; ours writes only a graph and reads no image, '
        f'so it takes {result["ours"]:.2f} s for any number of images\n'
        f'  the ratios are for {args.images:,} images, and grow with their number'
    )
    harness.finish(result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
