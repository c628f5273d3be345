# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Section 4.2: tail classes that an image was checked for are not spared.
# No published result on LVIS v1.
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql-image-level-labels_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_eql_ms-1x_lvis-v1.py'
train_dataloader = dict(dataset=dict(dataset=dict(type='FederatedLVISV1Dataset')))
model = dict(roi_head=dict(type='LongTailStandardRoIHead'))
