# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The paper's Table 6, in percent:
# | AP    | AP1   | AP2   | AP3   | AP4   | AP5  |
# |-------|-------|-------|-------|-------|------|
# | 57.83 | 64.95 | 60.18 | 61.17 | 58.23 | 44.6 |
# lambda = 3e-4 of all images; the paper's tail ratio is about 3 %.
# Run: tools/train.py configs/eql/faster-rcnn_r50_fpn_eql_1x_openimages-challenge2019.py
_base_ = 'faster-rcnn_r50_fpn_sigmoid_1x_openimages-challenge2019.py'
loss_cls = dict(frequency_threshold=3e-4)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))
