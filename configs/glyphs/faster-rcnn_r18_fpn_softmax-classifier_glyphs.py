# The control of the stages beside it: the same stage without another loss.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_softmax-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_bags-classifier_glyphs.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='CrossEntropyLoss', use_sigmoid=False))))
