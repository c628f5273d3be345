# The detector that bags-classifier starts from, with masks.
# Run: tools/train.py configs/photos/mask-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py
_base_ = [
    '../_base_/models/mask-rcnn_mobilenet-v2_fpn.py',
    '../_base_/datasets/ccp-lt_masks.py',
    '../_base_/schedules/ccp-lt.py',
    '../_base_/longtail_runtime.py',
]
