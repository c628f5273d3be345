# EFL, Li et al., CVPR 2022, https://arxiv.org/abs/2201.02593
# The improved baseline that EFL is compared with, with focal loss; RFS, Gupta
# et al., LVIS, CVPR 2019, with 1e-3. No published result of mmdet's ATSS.
# Run: tools/train.py configs/efl/atss_r50_fpn_focal-rfs_ms-2x_lvis-v1.py
_base_ = [
    '../_base_/models/atss_r50_fpn_efl-paper.py',
    '../_base_/datasets/lvis_v1_640-800.py',
    '../_base_/schedules/efl_paper.py',
    '../_base_/longtail_default_runtime.py',
]
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))
val_evaluator = dict(metric='bbox')
test_evaluator = dict(metric='bbox')
