# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: + Open Images.
# Boxes of 110 shared classes in about 20,000 images of Open Images V5.
# The paper's Table 11, in percent; its row also has SENet-154, which mmdet
# lacks:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 31.4    | 21.5 | 33.1 | 33.3 |
# Tail classes and groups of AP stay LVIS's own: README.md makes both files.
# Run: tools/train.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_ms-25e_lvis-v0.5.py
_base_ = 'mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco_ms-25e_lvis-v0.5.py'
train_pipeline = [_base_.train_pipeline[0], dict(type='LoadOptionalMasks', with_bbox=True), *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(ann_file='annotations/lvis_v0.5_train_openimages.json', pipeline=train_pipeline))
default_hooks = dict(class_statistics=dict(class_statistics='data/lvis_v0.5/train_statistics.json'))
model = dict(roi_head=dict(mask_head=dict(type='OptionalMaskFCNMaskHead')))
