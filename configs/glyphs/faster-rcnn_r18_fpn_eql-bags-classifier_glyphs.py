# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Expected against EQL, 3 seeds: APr 16.5 (9.6), APc 35.5 (28.1), APf 52.6
# (51.6).
# Trains fc_cls for 4 epochs on the finished EQL detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-bags-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_bags-classifier_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_eql_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_eql_glyphs/epoch_5.pth'
