"""Target: the images and places that a package is compiled for. Its check needs no heavy import."""

import re
from dataclasses import dataclass

from components.contract import WARM_START_SERVING
from components.errors import UsageError
from components.places import SCHEMES
from kubeflow.mirrors import ROOT_FORM, is_pipeline_root
from pipeline.config import PipelineConfig
from pipeline.kubeflow_config import STEPS

_NAME = re.compile(r'[a-z0-9][a-z0-9-]*')
_IMAGE = re.compile(r'[^\s@]+@sha256:[0-9a-f]{64}|[^\s@]*?[^\s@:/]:(?!latest$)[A-Za-z0-9_][A-Za-z0-9_.-]*')


@dataclass(frozen=True, kw_only=True)
class Target:
    """The images, the object store and the webhook of a package."""

    image: str
    """Image of every step without a GPU, with a tag or a digest."""
    gpu_image: str | None
    """Image of the steps with a GPU; None if there are none."""
    pipeline_root: str
    """URI below which artifacts are stored."""
    webhook: str | None = None
    """Address that is told how a run ended; None if nobody is told."""

    def get_image(self, gpu: int | None) -> str:
        """Returns the image for a step.

        Args:
          gpu: the number of GPUs of the step.
        """
        return self.gpu_image if gpu and self.gpu_image else self.image

    def check(self, config: PipelineConfig) -> None:
        """Checks the options of `compile` against each other and against the config.

        Args:
          config: what is to be compiled.

        Raises:
          UsageError: an option has a value that it does not take, or options do not fit each other.
        """
        for option, image in (('--image', self.image), ('--gpu-image', self.gpu_image)):
            if image is not None and not _IMAGE.fullmatch(image):
                raise UsageError(f'{option} takes NAME:TAG or NAME@sha256:DIGEST, never :latest. Received: {image!r}')
        if not is_pipeline_root(self.pipeline_root):
            raise UsageError(f'--pipeline-root takes a URI with {ROOT_FORM}. Received: {self.pipeline_root!r}')
        places = [('--data', config.data), ('--serving', config.serving)]
        places += [('--set bulk_input=', config.bulk_input)] if config.bulk_input else []
        if config.trainer.warm_start not in ('none', WARM_START_SERVING):
            places.append(('--set trainer.warm_start=', config.trainer.warm_start))
        for option, place in places:
            if not (place or '').startswith(('/', *SCHEMES)):
                schemes = ', '.join(SCHEMES)
                raise UsageError(f'{option} takes an absolute path on a volume, or {schemes}. Received: {place!r}')
        if not _NAME.fullmatch(config.name):
            raise UsageError(f'--set name takes lower-case letters, digits and hyphens. Received: {config.name!r}')
        has_gpu = any(config.kubeflow.get_step(name).gpu for name in STEPS)
        if has_gpu and not self.gpu_image:
            raise UsageError('A step asks for a GPU, so --gpu-image must name the image for it.')
        if self.gpu_image and not has_gpu:
            raise UsageError(
                '--gpu-image is for steps with a GPU, and no step asks for one: --set kubeflow.steps.Trainer.gpu=1.'
            )
