# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: the baseline.
# + multi-scale training, COCO boxes of un-annotated objects are no background.
# The paper's Table 11, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 30.1    | 19.3 | 31.8 | 32.3 |
# Not in the paper: the training scales, which boxes count as un-annotated.
# Run: tools/train.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco_ms-25e_lvis-v0.5.py
_base_ = 'mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs_25e_lvis-v0.5.py'
short_sides = (640, 672, 704, 736, 768, 800)
resize = dict(type='RandomChoiceResize', keep_ratio=True, scales=[(1333, side) for side in short_sides])
train_pipeline = [*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[3:]]
train_dataloader = dict(
    dataset=dict(
        type='IgnoreRegionsLVISV05Dataset',
        ignore_file='../coco/annotations/instances_train2017.json',
        pipeline=train_pipeline,
    )
)
assigner = dict(type='BackgroundIgnoringAssigner', ignore_iof_thr=0.5)
model = dict(train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)))
