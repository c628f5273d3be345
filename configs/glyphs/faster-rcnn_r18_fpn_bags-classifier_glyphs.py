# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Mean of 3 seeds, in percent:
# |                 | APr  | APc  | APf  |
# |-----------------|------|------|------|
# | bags-classifier | 15.9 | 35.8 | 51.0 |
# | softmax         | 8.0  | 31.2 | 49.5 |
# docs/benchmark.md separates the loss from the longer training. Trains fc_cls
# for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_bags-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=120, bin_edges=(10, 100), others_ratio=8.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))
