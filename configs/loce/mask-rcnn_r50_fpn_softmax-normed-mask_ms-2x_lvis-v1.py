# The detector that LOCE starts from, https://arxiv.org/abs/2108.07507
# No published result. The authors have a normed mask head of their own.
# Run: tools/train.py configs/loce/mask-rcnn_r50_fpn_softmax-normed-mask_ms-2x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v1.py'
model = dict(roi_head=dict(mask_head=dict(predictor_cfg=dict(type='NormedConv2d', temperature=20))))
