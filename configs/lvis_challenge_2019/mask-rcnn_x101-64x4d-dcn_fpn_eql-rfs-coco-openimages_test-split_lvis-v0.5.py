# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: the submission.
# Writes work_dirs/lvis_challenge_2019/test.segm.json, which the evaluation
# server takes.
# The paper's Table 12, with the ensemble, on the 20,000 test images, in
# percent:
# | mask AP | APr   | APc   | APf   |
# |---------|-------|-------|-------|
# | 28.85   | 17.71 | 30.84 | 36.70 |
# Run: tools/test.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_test-split_lvis-v0.5.py CHECKPOINT --tta
_base_ = 'mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_mask-views_lvis-v0.5.py'
ann_file = 'annotations/lvis_v0.5_image_info_test.json'
test_dataloader = dict(dataset=dict(ann_file=ann_file, data_prefix=dict(img='test2017/')))
test_evaluator = dict(
    ann_file=_base_.data_root + ann_file, format_only=True, outfile_prefix='work_dirs/lvis_challenge_2019/test'
)
