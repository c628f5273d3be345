# The detector that the other configs here are compared with and start from.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py
_base_ = [
    '../_base_/models/faster-rcnn_mobilenet-v2_fpn.py',
    '../_base_/datasets/ccp-lt.py',
    '../_base_/schedules/ccp-lt.py',
    '../_base_/longtail_runtime.py',
]
