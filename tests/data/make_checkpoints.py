"""Write the three checkpoints beside this file, as past versions did.

python tests/data/make_checkpoints.py
"""

from pathlib import Path

import torch

CLASSES = ('disc', 'square')
CONFIG = "model = dict(type='FasterRCNN')\n"
STATISTICS = {
    'format': 'mmdet_longtail.class_statistics',
    'version': 1,
    'source': 'train.json',
    'num_images': 5,
    'num_annotated_images': 2,
    'classes': [
        {'name': 'disc', 'image_count': 1, 'instance_count': 3},
        {'name': 'square', 'image_count': 2, 'instance_count': 2},
    ],
}


def weights(value, prefix=''):
    return {
        f'{prefix}fc_cls.weight': torch.full((3, 2), value),
        f'{prefix}fc_cls.bias': torch.full((3,), value),
    }


CHECKPOINTS = {
    'ddp': dict(
        meta=dict(cfg=CONFIG, dataset_meta=dict(classes=CLASSES)),
        state_dict=weights(1.0, 'module.'),
        class_statistics=STATISTICS,
    ),
    'mmdet2': dict(
        meta=dict(config=f'/home/you/config.py\n{CONFIG}', CLASSES=CLASSES),
        state_dict=weights(1.0),
    ),
    'ema': dict(
        meta=dict(cfg=CONFIG, dataset_meta=dict(CLASSES=CLASSES)),
        # EMAHook swaps: the average is the state_dict.
        state_dict=weights(1.0),
        ema_state_dict=weights(0.0, 'module.')
        | {'steps': torch.tensor(0, dtype=torch.int64)},
        class_statistics=STATISTICS,
    ),
}

if __name__ == '__main__':
    for name, content in CHECKPOINTS.items():
        torch.save(content, Path(__file__).with_name(f'{name}.pth'))
