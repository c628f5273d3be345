# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that BAGS starts from.
# The paper's Table 3, in percent:
# |      | AP    | APr   | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |------|-------|-------|-------|-------|------|-------|-------|-------|
# | mask | 31.94 | 13.67 | 34.04 | 36.62 | 5.56 | 33.07 | 33.75 | 37.02 |
# | box  | 34.61 | 14.24 | 35.98 | 41.03 | 5.80 | 35.36 | 36.87 | 40.50 |
# From mmdet's HTC X101-64x4d-DCN, multi-scale, on COCO; class-wise
# layers are re-initialised. Needs COCO's stuff maps, as the row without DCN.
# Run: tools/train.py configs/bags/htc_x101-64x4d-dcn_fpn_softmax_ms-20e_lvis-v0.5.py
_base_ = '../_base_/htc_x101-64x4d_fpn_bags-paper.py'
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/htc/htc_x101_64x4d_fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco/htc_x101_64x4d_fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco_20200312-946fd751.pth'
dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
backbone = dict(dcn=dcn, stage_with_dcn=(False, True, True, True))
model = dict(backbone=backbone)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='RandomResize', scale=[(1600, 400), (1600, 1400)], keep_ratio=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
