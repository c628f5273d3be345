# The softmax row of https://github.com/tztztztztz/eqlv2, which this config's
# EQL is compared with. Its results, in percent, the most frequent classes first
# (the repository has the rarest first):
# | AP   | AP1  | AP2  | AP3  | AP4  | AP5  |
# |------|------|------|------|------|------|
# | 43.1 | 52.6 | 48.2 | 45.2 | 42.5 | 26.3 |
# Run: tools/train.py configs/eql/faster-rcnn_r50_fpn_softmax_180k_openimages-challenge2019.py
_base_ = '../_base_/faster-rcnn_r50_fpn_180000it_openimages-challenge2019.py'
