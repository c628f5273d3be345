# LWS, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# Trains one factor per row of fc_cls, with class-aware sampling, for 4
# epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_lws_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
optim_wrapper = dict(optimizer=dict(lr=3e-4))
default_hooks = dict(train_only=dict(trainable=['roi_head.bbox_head.fc_cls.scale']))
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
model = dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=dict(type='ScaledLinear'))))
