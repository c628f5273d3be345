"""The choice of images and detections, and the figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    Matches,
    match_detections,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.visualization.detections import (
    NUM_LABELS,
    ImageSet,
    Panel,
    Shape,
    box_corners,
    choose_drawn,
    draw,
    mask_outlines,
    restrict_to_classes,
)

SCORES = st.sampled_from([0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 1.0])
FOUND = st.lists(
    st.tuples(
        st.integers(0, 4), SCORES, st.sampled_from(['true', 'false', None])
    ),
    max_size=40,
)


def drawn(found, score_thr=None):
    """Draw the same detections in two images."""
    n = len(found)
    label, score, verdict = zip(*found, strict=True) if found else ((),) * 3
    detections = Detections(
        image=np.repeat([0, 1], n),
        label=np.tile(np.array(label, int), 2),
        score=np.tile(np.array(score, float), 2),
        box=np.zeros((2 * n, 4)),
    )
    none = np.zeros((0, 1), bool)
    matches = Matches(
        EvaluationSpec(small_truth([[], []], 5), detections),
        np.array([[v == 'true'] for v in verdict * 2], bool).reshape(-1, 1),
        np.array([[v == 'false'] for v in verdict * 2], bool).reshape(-1, 1),
        none,
        none,
    )
    both = choose_drawn(matches, score_thr)
    assert (both[:n] == both[n:]).all()
    return both[:n].tolist()


@settings(deadline=None)
@given(FOUND)
def test_what_is_drawn_equals_a_naive_loop(found):
    lowest = {}
    for label, score, verdict in found:
        if verdict == 'true':
            lowest[label] = min(score, lowest.get(label, 2))
    others = [
        i
        for i, (label, _, verdict) in enumerate(found)
        if verdict == 'false' and label not in lowest
    ]
    best = sorted(others, key=lambda i: -found[i][1])[:5]
    expected = [
        verdict == 'true'
        or (verdict == 'false' and label in lowest and score >= lowest[label])
        or i in best
        for i, (label, score, verdict) in enumerate(found)
    ]
    assert drawn(found) == expected


@settings(deadline=None)
@given(FOUND, SCORES)
def test_a_threshold_replaces_the_rule(found, score_thr):
    assert drawn(found, score_thr) == [
        verdict is not None and score >= score_thr
        for _, score, verdict in found
    ]


# -- which images, in which order ------------------------------------------


def small_truth(objects, num_classes):
    """A validation set with these lists of labels, one an image."""
    annotations = [
        {
            'image_id': i,
            'category_id': label + 1,
            'bbox': [20 * k, 0, 10, 10],
            'area': 100,
            'iscrowd': int(label < 0),
        }
        for i, labels in enumerate(objects)
        for k, label in enumerate(labels)
    ]
    dataset = {
        'images': [
            {'id': i, 'file_name': f'{i}.png', 'width': 100, 'height': 20}
            for i in range(len(objects))
        ],
        'annotations': annotations,
        'categories': [
            {'id': c + 1, 'name': f'class_{c}'} for c in range(num_classes)
        ],
    }
    return GroundTruth(dataset, 'val.json', 'coco')


def counted_images(objects, image_count):
    """The image set of these objects; classes up to 10 images are rare."""
    truth = small_truth(objects, len(image_count))
    counts = np.array(image_count)
    names = tuple(truth.class_names)
    statistics = ClassStatistics(
        names, counts, counts, counts.max(), counts.max()
    )
    return ImageSet(truth, statistics)


def test_rare_classes_take_turns():
    objects = [[0], [0, 1], [2], [2, 1], [1], [0], []]
    images = counted_images(objects, [500, 7, 3])

    def chosen(number, wanted=(0, 1, 2)):
        return images.choose(np.isin(np.arange(3), wanted), number)

    # Class 2 shows image 3, which has two rare objects; class 1 has it, too.
    assert chosen(9) == [3, 2, 1, 4, 0, 5]
    assert chosen(1) == [3]
    assert chosen(9, [0]) == [1, 0, 5]
    assert chosen(9, [1]) == [3, 1, 4]


def test_more_rare_classes_than_pictures_are_spread():
    images = counted_images([[c] for c in range(10)], range(10, 0, -1))
    assert images.choose(np.ones(10, bool), 4) == [9, 6, 3, 0]


# -- the figures ------------------------------------------------------------


def test_a_panel_says_what_a_detector_did():
    ground_truth = small_truth([[0, 1, 1]], 3)
    results = [
        {'image_id': 0, 'category_id': id, 'score': score, 'bbox': box}
        for id, score, box in (
            (2, 0.004, [20, 0, 10, 10]),
            (1, 0.8, [50, 5, 10, 10]),
            (2, 0.003, [0, 0, 5, 5]),
            (3, 0.25, [60, 0, 10, 10]),
        )
    ]
    detections = Detections.from_results(results, ground_truth, 'bbox', 'here')
    matches = match_detections(EvaluationSpec(ground_truth, detections), [0.5])
    counts = np.array([50, 5, 50])
    names = tuple(ground_truth.class_names)
    statistics = ClassStatistics(names, counts, counts, 50, 50)
    images = ImageSet(ground_truth, statistics)

    def panel(wanted=(True, True, True), score_thr=None):
        restricted = restrict_to_classes(matches, np.array(wanted))
        drawn = choose_drawn(restricted, score_thr)
        return images.panel(0, 'ours', restricted, drawn)

    assert panel().heading == (
        'ours\n1 of 3 objects found, 1 of 2 rare; 2 of 3 false positives drawn'
    )
    assert [(s.kind, s.text, s.is_rare) for s in panel().shapes] == [
        ('true positive', 'class 1 0.004', True),
        ('missed', 'class 0', False),
        ('missed', 'class 1', True),
        ('false positive', 'class 0 0.8', False),
        ('false positive', 'class 2 0.25', False),
    ]
    assert panel().shapes[2].outlines[0].tolist() == (
        box_corners([40, 0, 10, 10]).tolist()
    )
    only = panel((True, False, False))
    assert [s.text for s in only.shapes] == ['class 0', 'class 0 0.8']
    assert len(panel(score_thr=0).shapes) == 6


def test_outlines_run_around_a_mask():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 10:20] = 1
    mask[20:25, 30:35] = 1
    encoding = mask_utils.encode(np.asfortranarray(mask))
    outlines = sorted(mask_outlines(encoding), key=lambda o: o.min())
    assert len(outlines) == 2
    assert (outlines[0].min(0), outlines[0].max(0)) == (
        pytest.approx([10, 5]),
        pytest.approx([20, 15]),
    )
    empty = mask_utils.encode(np.zeros((30, 40), np.uint8, order='F'))
    assert mask_outlines(empty) == []


def test_labels_stay_inside_and_apart():
    shapes = [
        Shape('missed', [box_corners(box)], 'a rather long $name', True)
        for box in ([90, 0, 9, 9], [91, 1, 9, 9], [0, 95, 5, 5], [5, 95, 5, 5])
    ]
    shapes.append(Shape('true positive', [], 'an empty mask', False))
    panel = Panel('', shapes)
    figure = draw(Image.new('RGB', (100, 100)), '', [panel])
    [axes] = figure.axes
    inside = axes.get_window_extent().padded(1)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1
        assert box.count_overlaps(boxes[:i]) == 0


def test_the_most_important_of_many_shapes_have_labels():
    corners = np.random.default_rng(0).uniform(0, 90, (5000, 2))
    shapes = [
        Shape('false positive', [box_corners((x, y, 9, 9))], f'{i}', False)
        for i, (x, y) in enumerate(corners)
    ]
    panel = Panel('', shapes)
    figure = draw(Image.new('RGB', (100, 100)), '', [panel])
    [axes] = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == [f'{i}' for i in range(NUM_LABELS)]
    outlines = [len(part.get_paths()) for part in axes.collections]
    assert sum(outlines) == len(shapes)


def test_a_panel_says_that_shapes_lack_a_label():
    ground_truth = small_truth([[0] * (NUM_LABELS + 1)], 1)
    nothing = Detections.from_results([], ground_truth, 'bbox', 'here')
    matches = match_detections(EvaluationSpec(ground_truth, nothing), [0.5])
    panel = ImageSet(ground_truth).panel(0, '', matches, choose_drawn(matches))
    assert f'{NUM_LABELS} of {NUM_LABELS + 1} outlines' in panel.heading
