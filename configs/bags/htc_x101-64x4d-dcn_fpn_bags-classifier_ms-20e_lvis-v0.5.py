# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 3, in percent:
# |      | AP    | APr   | APc   | APf   | AP1   | AP2   | AP3   | AP4   |
# |------|-------|-------|-------|-------|-------|-------|-------|-------|
# | mask | 34.39 | 26.79 | 35.04 | 36.61 | 21.07 | 36.69 | 33.71 | 36.61 |
# | box  | 37.71 | 29.43 | 37.78 | 40.92 | 24.40 | 40.30 | 36.67 | 40.00 |
# Trains fc_cls of all three stages for 12 epochs on the finished softmax
# detector beside it.
# Run: tools/train.py configs/bags/htc_x101-64x4d-dcn_fpn_bags-classifier_ms-20e_lvis-v0.5.py
_base_ = '../_base_/htc_x101-64x4d_fpn_bags-classifier.py'
base_config = 'htc_x101-64x4d-dcn_fpn_softmax_ms-20e_lvis-v0.5.py'
load_from = 'work_dirs/htc_x101-64x4d-dcn_fpn_softmax_ms-20e_lvis-v0.5/epoch_20.pth'
dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
backbone = dict(dcn=dcn, stage_with_dcn=(False, True, True, True))
model = dict(backbone=backbone)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='RandomResize', scale=[(1600, 400), (1600, 1400)], keep_ratio=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
