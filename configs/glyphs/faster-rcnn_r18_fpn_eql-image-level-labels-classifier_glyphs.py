# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176, section 4.2
# Tail classes that an image was checked for are not spared there; compare with
# eql-classifier.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-image-level-labels-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_eql-classifier_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
train_dataloader = dict(dataset=dict(type='FederatedAnnotationFileDataset'))
model = dict(roi_head=dict(type='LongTailStandardRoIHead', bbox_head=dict(type='LongTailShared2FCBBoxHead')))
