# The control of the stages beside it: the same stage without another loss.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py'
base_config = 'faster-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py'
load_from = 'work_dirs/faster-rcnn_mobilenet-v2_fpn_softmax_ccp-lt/epoch_5.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4)]
