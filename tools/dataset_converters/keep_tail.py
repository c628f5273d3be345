r"""Keep only the classes of an annotation file that have few boxes.

    python tools/dataset_converters/keep_tail.py TRAIN.json OUT.json --fewer-than 100

OUT.json has the annotations of classes with fewer training boxes and the
images that have one; all categories stay, in their order, so labels do too.
To train with it, give ClassStatisticsHook the counts of the whole set, which
tools/class_statistics.py TRAIN.json --out writes.
"""

import argparse
import json

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import positive_int
from mmdet_longtail.cli.result_files import check_outputs
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    parse_annotations,
    select_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import read_json, write_atomic


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('annotations', metavar='TRAIN.json')
    parser.add_argument('out', metavar='OUT.json')
    parser.add_argument(
        '--fewer-than',
        type=positive_int,
        default=100,
        metavar='N',
        help='boxes that a class has less of (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    """Write the part, and say what it has."""
    args = parse_args()
    check_outputs([args.out], [args.annotations])
    content = read_json(args.annotations)
    annotations = parse_annotations(content, args.annotations)
    statistics = ClassStatistics.from_annotations(annotations)
    is_tail = statistics.instance_count < args.fewer_than
    if not is_tail.any():
        raise LongTailError(
            f'{args.annotations}: no class has fewer than {args.fewer_than} '
            f'boxes, the rarest has {statistics.instance_count.min()}; give a '
            'larger --fewer-than'
        )
    tail = {
        category_id
        for category_id, kept in zip(
            annotations.category_ids, is_tail, strict=True
        )
        if kept
    }
    part = select_annotations(
        content,
        (a['category_id'] in tail for a in content['annotations']),
        args.annotations,
    )
    write_atomic(args.out, json.dumps(part))
    print(
        f'{args.out}: {is_tail.sum()} of {len(is_tail)} classes have fewer '
        f'than {args.fewer_than} boxes; {len(part["annotations"])} of '
        f'{len(content["annotations"])} annotations and '
        f'{len(part["images"])} of {len(content["images"])} images are kept'
    )


if __name__ == '__main__':
    run(main)
