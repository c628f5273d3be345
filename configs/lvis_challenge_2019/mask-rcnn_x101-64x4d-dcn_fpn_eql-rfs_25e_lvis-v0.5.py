# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: the detector.
# https://arxiv.org/abs/2003.05176; the paper has no result of this step.
# Not in the paper: schedule (here the one of its section 4.2), which stages
# are deformable, the RFS threshold (here LVIS's), the COCO checkpoint (here
# mmdet's nearest, without DCN; class-wise layers are re-initialised).
# Run: tools/train.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs_25e_lvis-v0.5.py
_base_ = '../eql/mask-rcnn_r50_fpn_eql_25e_lvis-v0.5.py'
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_x101_64x4d_fpn_mstrain-poly_3x_coco/mask_rcnn_x101_64x4d_fpn_mstrain-poly_3x_coco_20210526_120447-c376f129.pth'
sync_bn = 'torch'  # of the backbone, which alone has batch normalisation
backbone = dict(
    type='ResNeXt',
    depth=101,
    groups=64,
    base_width=4,
    norm_eval=False,
    dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
    stage_with_dcn=(False, True, True, True),
    init_cfg=None,
)
model = dict(backbone=backbone)
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))
