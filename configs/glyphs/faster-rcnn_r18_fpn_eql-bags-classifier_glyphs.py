# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Trains fc_cls for 4 epochs on the finished EQL detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-bags-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_bags-classifier_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_eql_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_eql_glyphs/epoch_5.pth'
