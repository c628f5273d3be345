# The detector that the other configs here are compared with and start from.
# Box AP of one seed on a CPU, in percent. The balanced set has the same
# classes, groups and validation images.
# | rules, training set | APr  | APc  | APf  |
# |---------------------|------|------|------|
# | LVIS, long-tailed   | 7.5  | 28.3 | 48.5 |
# | LVIS, balanced      | 43.1 | 41.2 | 45.3 |
# | COCO, long-tailed   | 5.0  | 20.2 | 40.8 |
# | COCO, balanced      | 35.4 | 32.8 | 37.1 |
# Balanced, in the groups of the long-tailed set:
#   tools/dataset_converters/make_glyphs.py --out data/glyphs_balanced --imbalance 1
#   tools/class_statistics.py data/glyphs/annotations/train.json --out lt.json
#   and the command below with --work-dir work_dirs/balanced --cfg-options
#   train_dataloader.dataset.data_root=data/glyphs_balanced/
#   default_hooks.class_statistics.class_statistics=lt.json
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_softmax_glyphs.py
_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn_narrow.py',
    '../_base_/datasets/glyphs.py',
    '../_base_/schedules/glyphs.py',
    '../_base_/longtail_runtime.py',
]
