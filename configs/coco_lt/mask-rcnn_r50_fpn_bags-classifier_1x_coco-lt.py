# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 6, in percent:
# |      | AP   | AP1  | AP2  | AP3  | AP4  |
# |------|------|------|------|------|------|
# | mask | 20.3 | 3.4  | 18.9 | 21.7 | 23.0 |
# | box  | 21.5 | 13.4 | 17.7 | 22.5 | 26.0 |
# Trains fc_cls for 12 epochs on the finished softmax detector beside it.
# Nobody says which bins were trained with; these are the bins of the AP.
# Run: tools/train.py configs/coco_lt/mask-rcnn_r50_fpn_bags-classifier_1x_coco-lt.py
_base_ = 'mask-rcnn_r50_fpn_softmax_1x_coco-lt.py'
base_config = 'mask-rcnn_r50_fpn_softmax_1x_coco-lt.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax_1x_coco-lt/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=80, bin_edges=(20, 400, 8000), others_ratio=8.0
)
model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=loss_cls)), test_cfg=dict(rcnn=dict(score_thr=0.001, max_per_img=100))
)
