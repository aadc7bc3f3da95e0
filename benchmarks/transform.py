"""The Transform step: our graph alone against TFX's default, which materialises every image and computes statistics.

    python -m benchmarks.transform [--rounds N] [--images N]

Both sides are TFX's own component and executor on the same examples and the same preprocessing_fn. Ours is the
component that `pipeline.create_pipeline` makes, whatever its parameters are; the rival is Transform with the defaults.
"""

import functools
import json
import shutil
import sys
from pathlib import Path

from benchmarks import harness

_DESCRIPTION = (
    'Transform step, seconds and bytes on disk: graph only (ours) against stock, materialised with statistics'
)


def make_inputs(config) -> dict:
    """Runs ImportExampleGen and CuratedSchemaGen; returns {'examples': [artifact], 'schema': [artifact]}."""
    from tfx.components import ImportExampleGen
    from tfx.orchestration import metadata, pipeline
    from tfx.proto import example_gen_pb2

    from components import features
    from components.schema import CuratedSchemaGen
    from pipeline.config import Layout
    from pipeline.runner import LocalRunner

    found = {}
    layout = Layout(config.root)
    splits = [example_gen_pb2.Input.Split(name=split, pattern=f'{split}/*') for split in features.SPLITS]
    graph = pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(layout.artifacts),
        components=[
            ImportExampleGen(input_base=config.data, input_config=example_gen_pb2.Input(splits=splits)),
            CuratedSchemaGen(),
        ],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(layout.metadata)),
        beam_pipeline_args=list(config.beam.args),
    )
    LocalRunner(lambda result: found.update(result.outputs)).run(graph)
    return {key: list(found[key]) for key in ('examples', 'schema')}


def make_sides(config) -> dict:
    """The two Transform components: the one of our pipeline, and TFX's with a default for all that has one."""
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


def run_transform(component, inputs: dict, out: Path, beam_args: tuple[str, ...]) -> None:
    """Runs a Transform component's executor once, as its launcher would; `out` is replaced."""
    from tfx.components.transform.executor import Executor

    shutil.rmtree(out, ignore_errors=True)
    outputs = {}
    for key, channel in component.outputs.items():
        artifact = channel.type()
        artifact.uri = str(out / key)
        Path(artifact.uri).mkdir(parents=True)
        outputs[key] = [artifact]
    context = Executor.Context(beam_pipeline_args=list(beam_args), tmp_dir=str(out / '.tmp'), unique_id='')
    Executor(context).Do(inputs, outputs, component.spec.exec_properties)


def measure(folder: Path, images: int, rounds: int) -> dict:
    """Prepares the examples under `folder`, runs both sides and adds what they leave on disk."""
    with harness.divert_stdout():
        from pipeline.config import PipelineConfig

        sentence = harness.write_records(folder / 'data', images)
        config = PipelineConfig(name='benchmark', root=str(folder), data=str(folder / 'data'))
        inputs = make_inputs(config)
        runs = {
            name: functools.partial(run_transform, component, inputs, folder / name, config.beam.args)
            for name, component in make_sides(config).items()
        }
    size = config.trainer.get_image_size()
    result = harness.run_benchmark(
        f'{_DESCRIPTION}; {sentence} at {size} px', **runs, rounds=rounds, images=images, image_size=size
    )
    used = {f'bytes_{name}': harness.measure_bytes(folder / name) for name in runs}
    return {**result, **used, 'bytes_ratio': used['bytes_rival'] / used['bytes_ours']}


def main() -> int:
    args = harness.build_parser(_DESCRIPTION, images=500).parse_args()
    print(harness.describe_machine(), flush=True)
    with harness.make_folder() as folder:
        result = measure(folder, args.images, args.rounds)
    print(
        f'  on disk: ours {result["bytes_ours"]:,} bytes, rival {result["bytes_rival"]:,} bytes, '
        f'rival / ours = {result["bytes_ratio"]:,.0f}\n'
        f'  the rival took {result["rival"] / args.images:.4f} s (its start included) and '
        f'{result["bytes_rival"] / args.images:,.0f} bytes an image; ours writes a graph and reads no image, '
        f'so it takes {result["ours"]:.2f} s for any number of them\n'
        f'  so the ratios hold for {args.images:,} images, and grow with their number'
    )
    harness.finish(result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
