"""Assigners of proposals to objects."""

from typing import Any

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_longtail.utils.checks import check_numbers

IGNORED = -1


@TASK_UTILS.register_module()
class BackgroundIgnoringAssigner(MaxIoUAssigner):
    """mmdet's ``MaxIoUAssigner``, ignoring background in ignored regions.

    With mmdet's own ``ignore_iof_thr``, objects there are ignored too, such
    as a plate on a table that is an ignored region. Tan et al., CVPR 2020,
    Appendix A, exclude "background proposals during sampling".

    Args:
        ignore_iof_thr (float): A proposal is not background when more than
            this share of it, in [0, 1], lies in one ignored region. Defaults
            to 0.5.
        **kwargs: Arguments of ``MaxIoUAssigner``.
    """

    def __init__(
        self, *args: Any, ignore_iof_thr: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(*args, ignore_iof_thr=ignore_iof_thr, **kwargs)
        name = type(self).__name__
        check_numbers(name, '[0, 1]', ignore_iof_thr=ignore_iof_thr)

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        if gt_instances_ignore is None or len(gt_instances_ignore) == 0:
            return result
        share = self.iou_calculator(
            pred_instances.priors, gt_instances_ignore.bboxes, mode='iof'
        )  # (proposals, regions)
        inside = (share > self.ignore_iof_thr).any(1)
        result.gt_inds[inside & (result.gt_inds == 0)] = IGNORED
        return result
