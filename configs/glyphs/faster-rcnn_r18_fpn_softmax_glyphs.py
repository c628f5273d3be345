# The detector that the other configs here are compared with and start from.
# Bbox AP r/c/f by LVIS's rules (by COCO's): 7.5/28.3/48.5 (5.0/20.2/40.8).
# On the balanced set of the same classes, same groups and validation images:
# 43.1/41.2/45.3 (35.4/32.8/37.1). One seed, CPU.
# Balanced, in the groups of the long-tailed set:
#   tools/dataset_converters/make_glyphs.py --out data/glyphs_balanced --imbalance 1
#   tools/class_statistics.py data/glyphs/annotations/train.json --out lt.json
#   and the command below with --work-dir work_dirs/balanced --cfg-options
#   train_dataloader.dataset.data_root=data/glyphs_balanced/
#   default_hooks.class_statistics.class_statistics=lt.json
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_softmax_glyphs.py
_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn_narrow.py',
    '../_base_/datasets/glyphs.py', '../_base_/schedules/glyphs.py',
    '../_base_/longtail_runtime.py'
]
