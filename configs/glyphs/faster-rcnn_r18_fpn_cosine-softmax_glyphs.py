# Softmax with the cosine classifier of ecm_glyphs, the control of ECM.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_cosine-softmax_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
cls_predictor_cfg = dict(type='NormedLinear', temperature=20)
model = dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=cls_predictor_cfg)))
