# LWS, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# Trains one factor per row of fc_cls, with class-aware sampling, for 4
# epochs on the finished softmax detector beside it.
# tools/model_converters/edit_classifier.py fold folds the factors into a plain softmax detector.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_lws_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
default_hooks = dict(train_only=dict(trainable=['roi_head.bbox_head.fc_cls.scale']))
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
model = dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='ScaledLinear'))))
