"""create_pipeline: the graph and nothing else, one for every runner."""

import dataclasses
import json
from typing import Any

from tfx.components import ExampleValidator, StatisticsGen, Trainer
from tfx.orchestration import metadata, pipeline
from tfx.proto import example_gen_pb2, pusher_pb2, trainer_pb2

import tensorflow_data_validation as tfdv  # isort: skip  (after tfx, which replaces a module that TFDV lacks)

from components import features
from components.base_model import BaseModelFinder
from components.baseline import BaselineFinder
from components.data_gate.component import DataCheck, DataGate
from components.example_gen import ImportExampleGen
from components.model_gate.component import Evaluator
from components.model_gate.eval_config import make_eval_config
from components.pusher import Pusher
from components.schema import CuratedSchemaGen
from components.serving_check.component import ServingCheck
from components.source_digest import add_source_digests
from components.transform import Transform
from components.tuner import Tuner
from pipeline.batch.component import BulkInferrer
from pipeline.config import Layout, PipelineConfig
from pipeline.report.component import Report

# User code goes by dotted path, and our packages are installed wherever a component runs. A module file would
# be built into a wheel and installed with pip by every step.
PREPROCESSING_FN = 'trainer.preprocessing.preprocessing_fn'
RUN_FN = 'trainer.train.run_fn'
TUNER_FN = 'trainer.tuner.tuner_fn'


_KEPT_SETTINGS = ('name', 'trainer', 'tuner', 'export', 'gate', 'serving_check', 'data_gate', 'sample')
"""What a version keeps of the config: everything but where the run's folders are and how its steps are run."""


def list_kept_settings(config: PipelineConfig) -> dict[str, Any]:
    """Returns the settings that a version and a run keep, without paths.

    The Pusher can often not reach what the Trainer reads. Of a weights file, and of a version, its name is kept.
    """
    kept = {key: value for key, value in json.loads(config.to_json()).items() if key in _KEPT_SETTINGS}
    del kept['trainer']['cache_dir'], kept['trainer']['checkpoint_dir']
    for name in ('weights', 'warm_start'):
        kept['trainer'][name] = kept['trainer'][name].rstrip('/').rpartition('/')[2]
    return kept


def create_pipeline(config: PipelineConfig, pipeline_root: str | None = None) -> pipeline.Pipeline:
    """Chains the components from TFRecords to a pushed SavedModel.

    Args:
      config: everything a run can vary.
      pipeline_root: folder or URI of the artifacts; None for the local run's.

    Returns:
      A TFX pipeline for any runner. Only the local run's has a connection to ML Metadata.
    """
    layout = Layout(config.root)
    splits = [example_gen_pb2.Input.Split(name=split, pattern=f'{split}/*') for split in features.SPLITS]
    data = config.data or str(layout.sample)
    example_gen = ImportExampleGen(input_base=data, input_config=example_gen_pb2.Input(splits=splits))
    examples = example_gen.outputs['examples']

    schema_gen = CuratedSchemaGen(examples, config.class_names)
    schema = schema_gen.outputs['schema']
    # Semantic statistics: TFDV looks into the images too, which the schema says they are.
    statistics_gen = StatisticsGen(
        examples=examples, schema=schema, stats_options=tfdv.StatsOptions(enable_semantic_domain_stats=True)
    )
    statistics = statistics_gen.outputs['statistics']
    example_validator = ExampleValidator(statistics=statistics, schema=schema)

    serving = config.get_serving()
    data_check = DataCheck(
        examples=examples,
        statistics=statistics,
        schema=schema,
        anomalies=example_validator.outputs['anomalies'],
        config=config.data_gate,
        serving=serving,
        serving_classes=config.serving_classes,
    )
    data_gate = DataGate(data_check.outputs['report'])

    # Nothing is materialised: at 224 pixels CIFAR-10 would take some 30 GB, and the graph costs nothing to run again.
    transform = Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn=PREPROCESSING_FN,
        materialize=False,
        disable_statistics=True,
        disable_analyzer_cache=True,
        custom_config={
            'backbone': config.trainer.backbone,
            'image_size': config.trainer.get_image_size(),
            'resize': config.trainer.resize,
        },
    )

    transform.add_upstream_node(data_gate)

    training: dict[str, Any] = {
        'examples': examples,
        'transform_graph': transform.outputs['transform_graph'],
        'schema': schema,
        'train_args': trainer_pb2.TrainArgs(splits=[features.TRAIN_SPLIT]),
        'eval_args': trainer_pb2.EvalArgs(splits=[features.VAL_SPLIT]),
    }
    # The Trainer begins with `base_model`, and cannot always reach the place where that comes from.
    trainer_settings = dataclasses.asdict(dataclasses.replace(config.trainer, warm_start='none'))
    tuner = base_model_finder = None
    if config.tuner.trials:
        tuner_settings = {'trainer': trainer_settings, 'tuner': dataclasses.asdict(config.tuner)}
        tuner = Tuner(tuner_fn=TUNER_FN, custom_config=tuner_settings, **training)
    if config.trainer.warm_start != 'none':
        base_model_finder = BaseModelFinder(config.trainer.warm_start, serving)
    chosen = tuner.outputs['best_hyperparameters'] if tuner else None

    model_trainer = Trainer(
        run_fn=RUN_FN,
        base_model=base_model_finder and base_model_finder.outputs['model'],
        hyperparameters=chosen,
        custom_config={'trainer': trainer_settings, 'export': dataclasses.asdict(config.export)},
        **training,
    )
    model = model_trainer.outputs['model']

    baseline_finder = BaselineFinder(model, serving)
    baseline = baseline_finder.outputs['baseline']
    evaluator = Evaluator(
        examples=examples, model=model, baseline=baseline, eval_config=make_eval_config(), gate=config.gate
    )

    settings = list_kept_settings(config)
    serving_check = ServingCheck(
        model,
        model_trainer.outputs['model_run'],
        evaluator.outputs['blessing'],
        config.serving_check,
        resize=config.trainer.resize,
    )
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs['blessing'],
        infra_blessing=serving_check.outputs['blessing'],
        evaluation=evaluator.outputs['evaluation'],
        baseline=baseline,
        statistics=statistics,
        hyperparameters=chosen,
        data=data,
        settings=settings,
        defaults=list_kept_settings(PipelineConfig(name=config.name, root=config.root)),
        serving_classes=config.serving_classes,
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=serving)
        ),
    )

    trials = {'tuner_results': tuner.outputs['tuner_results']} if tuner else {}
    report = Report(
        {
            **trials,
            'examples': examples,
            'statistics': statistics,
            'schema': schema,
            'data_report': data_check.outputs['report'],
            'model': model,
            'model_run': model_trainer.outputs['model_run'],
            'baseline': baseline,
            'evaluation': evaluator.outputs['evaluation'],
            'serving_blessing': serving_check.outputs['blessing'],
            'pushed_model': pusher.outputs['pushed_model'],
        },
        root='' if pipeline_root else str(layout.root),
        data=data,
        settings=settings,
    )

    components = [
        example_gen,
        schema_gen,
        statistics_gen,
        example_validator,
        data_check,
        data_gate,
        transform,
        *([tuner] if tuner else []),
        model_trainer,
        baseline_finder,
        evaluator,
        serving_check,
        pusher,
        report,
    ]
    if base_model_finder is not None:
        components.insert(0, base_model_finder)  # a version that cannot be used is named before anything runs
    if config.bulk_input:
        bulk_inferrer = BulkInferrer(
            model=model,
            model_blessing=evaluator.outputs['blessing'],
            infra_blessing=serving_check.outputs['blessing'],
            input=config.bulk_input,
        )
        components.append(bulk_inferrer)
    add_source_digests(components)
    # Making the configuration makes the store's folder, and only a local run has a store.
    connection = None if pipeline_root else metadata.sqlite_metadata_connection_config(str(layout.metadata))
    return pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root or str(layout.artifacts),
        components=components,
        enable_cache=True,
        metadata_connection_config=connection,
        beam_pipeline_args=list(config.beam.args),
    )
