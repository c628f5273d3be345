# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: the COCO expert.
# mmdet's COCO detector on the images of LVIS val; tools/analysis_tools/ensemble.py takes
# what it writes.
# The paper's Table 11, with both experts, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 35.1    | 24.8 | 37.5 | 36.3 |
# README.md makes the annotation file.
# Run: tools/test.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d_fpn_coco-expert_lvis-v0.5.py CHECKPOINT
_base_ = 'mmdet::mask_rcnn/mask-rcnn_x101-64x4d_fpn_ms-poly_3x_coco.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
data_root, ann_file = 'data/lvis_v0.5/', 'annotations/val_coco_categories.json'
test_dataloader = dict(dataset=dict(data_root=data_root, ann_file=ann_file, data_prefix=dict(img='val2017/')))
test_evaluator = dict(
    _delete_=True,
    type='FrequencyGroupMetric',
    metric=['bbox', 'segm'],
    ann_file=data_root + ann_file,
    format_only=True,
    outfile_prefix='work_dirs/lvis_challenge_2019/coco',
)
model = dict(test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)))
