"""Training of a detector's classifier from scratch."""

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_longtail.engine.hooks.convert_classifier_hook import starts_training
from mmdet_longtail.models.utils.bbox_heads import classifier_heads, unwrapped
from mmdet_longtail.structures import Checkpoint


@HOOKS.register_module()
class RestartClassifierHook(Hook):
    """Re-initialise the classifier instead of loading it by ``load_from``.

    The classifier (``fc_cls`` of each RoI head) keeps its initial weights, as
    in cRT (Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020, https://arxiv.org/abs/1910.09217,
    section 4.2). A resume and a test load it from the checkpoint.

    Raises:
        LongTailError: If the model has no RoI head with a classifier.
    """

    # After ConvertClassifierHook renames the weights of mmdet 1.x, and before
    # EMAHook copies them.
    priority = 'HIGH'

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Remove the classifier from the checkpoint."""
        if not starts_training(runner):
            return
        weights = Checkpoint.of(checkpoint).weights
        for name in classifier_heads(unwrapped(runner.model)):
            layer = f'{name}.fc_cls'
            for key in [key for key in weights if key.startswith(f'{layer}.')]:
                del weights[key]
            runner.logger.info(f'{layer} is re-initialised')
