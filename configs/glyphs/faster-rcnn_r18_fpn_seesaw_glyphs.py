# Seesaw Loss, Wang et al., CVPR 2021, https://arxiv.org/abs/2008.10032
# mmdet's own SeesawLoss.
# Mean of 3 seeds, in percent:
# |         | APr  | APc  | APf  |
# |---------|------|------|------|
# | seesaw  | 13.1 | 33.4 | 51.4 |
# | softmax | 8.4  | 29.8 | 49.0 |
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_seesaw_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='SeesawLoss', p=0.8, q=2.0, num_classes=120)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))
