"""The counts of the report, and the page."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    evaluate,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.visualization.detections import ImageSet
from mmdet_longtail.visualization.report import Detector, Report

STATISTICS = ClassStatistics(
    class_names=('many', 'some', 'few', 'single'),
    image_count=np.array([500, 50, 5, 1]),
    instance_count=np.array([900, 70, 5, 1]),
    num_images=500,
    num_annotated_images=500,
)
GROUPS = STATISTICS.frequency_groups()
MANY, SOME, FEW, SINGLE = range(4)


def at(x, label, score=1.0):
    return {
        'category_id': label,
        'bbox': [x, 0, 10, 10],
        'area': 100,
        'score': score,
    }


def in_images(several):
    return [
        dict(box, image_id=image)
        for image, boxes in enumerate(several)
        for box in boxes
    ]


def make_report(truths, detections, weights=None, folder=None, is_lvis=False):
    """Report one detector; each list has the boxes of an image."""
    images = [
        {'id': i, 'file_name': 'a.png', 'width': 60, 'height': 20}
        for i in range(len(truths))
    ]
    for image in images if is_lvis else ():
        image |= {'neg_category_ids': [], 'not_exhaustive_category_ids': []}
    dataset = {
        'images': images,
        'annotations': [
            dict(box, id=i) for i, box in enumerate(in_images(truths), 1)
        ],
        'categories': [
            {'id': c, 'name': name}
            for c, name in enumerate(STATISTICS.class_names)
        ],
    }
    rules = 'lvis' if is_lvis else 'coco'
    truth = GroundTruth(dataset, 'val.json', rules)
    found = Detections.from_results(in_images(detections), truth, 'bbox', '')
    evaluation = evaluate(EvaluationSpec(truth, found), GROUPS)
    detector = Detector(
        '<dense>', evaluation, 'results.json', class_weights=weights
    )
    return Report([detector], ImageSet(truth, STATISTICS, folder))


def test_answers_per_group():
    report = make_report(
        [
            [at(0, FEW), at(50, FEW), at(100, SINGLE)],
            [at(0, MANY)],
            [at(0, FEW)],
        ],
        [
            [
                at(0, FEW, 0.4),
                at(1, MANY, 0.3),
                at(50, FEW, 0.2),
                at(51, MANY, 0.5),
                at(100, FEW, 0.1),
            ],
            [at(0, FEW, 0.9)],
            [],
        ],
    )
    # right, at most as frequent, more frequent, no box
    [detector] = report.detectors
    image_count = STATISTICS.image_count
    shares = [detector.answer_shares(g, image_count) for g in GROUPS]
    np.testing.assert_allclose(
        shares, [[25, 0, 50, 25], [0, 0, 0, 0], [0, 100, 0, 0]]
    )


@pytest.mark.parametrize(('number', 'expected'), [(2, 0.4), (3, 0.1), (9, 0)])
def test_as_many_boxes_are_shown_as_there_are_objects(number, expected):
    truths = [[at(20 * i, MANY) for i in range(number)], []]
    found = [[at(0, FEW, 0.1), at(0, FEW, 0.7)], [at(0, FEW, 0.4)]]
    [detector] = make_report(truths, found).detectors
    assert detector.score_thr == expected
    assert len(detector.shown.spec.detections) == min(number, 3)


def test_found_objects_per_group():
    [detector] = make_report(
        [[at(0, FEW), at(50, MANY)], [at(0, SINGLE)]],
        [
            [at(0, FEW, 0.5), at(1, FEW, 0.4), at(50, MANY, 0.3)],
            [at(0, FEW, 0.9)],
        ],
    ).detectors
    # The three best: 0.9, 0.5 and 0.4.
    assert detector.score_thr == 0.4
    assert [detector.num_found(group) for group in GROUPS] == [1, 0, 0]


def compare(*detections):
    """Report detectors on images with a frequent object each."""
    truths = [[at(0, MANY)]] * len(detections[0])
    reports = [make_report(truths, found) for found in detections]
    detectors = [
        replace(report.detectors[0], name=f'detector {i}')
        for i, report in enumerate(reports)
    ]
    return Report(detectors, reports[0].images)


def test_a_winner_is_outside_of_its_interval():
    right, wrong = [at(0, MANY, 0.9)], [at(30, MANY, 0.9)]
    half = [right, wrong] * 10
    page = compare([right] * 20, half, half).render()
    assert 'detector 0 has the highest AP, 100.0 %' in page
    assert page.count('class="best"') == 2  # AP and APf


def test_a_lead_within_its_interval_is_none():
    right, wrong = [at(0, MANY, 0.9)], [at(30, MANY, 0.9)]
    a, b = [right, wrong, wrong] * 3, [wrong, right, right] * 3
    report = compare(a, b)
    page = report.render()
    assert report.differences[1]['AP'].value > 0.1
    assert 'no difference to the highest AP' in page
    assert 'has the highest AP' not in page and 'class="best"' not in page
    page = compare(a, b, [[]] * 9).render()
    assert 'have the highest APs' in page and 'has the highest' not in page


def test_ranking_and_gain_over_the_first():
    right, wrong = [at(0, MANY, 0.9)], [at(30, MANY, 0.9)]
    report = compare([wrong] * 9, [right, right, wrong] * 3, [right] * 9)
    assert report.ranking == [2, 1, 0]
    best = report.detectors[2]
    gain = report.measures_of(best)['gain']
    np.testing.assert_equal(gain[MANY], best.measures['AP'][MANY])
    page = report.render()
    svg = page.partition('<h2>Ranking</h2>')[2].partition('<svg')[2]
    svg = svg.partition('</svg>')[0]
    names = re.findall(r'detector \d', svg)
    assert names[:3] == ['detector 2', 'detector 1', 'detector 0']
    assert page.count('points of AP</title>') == 2


def test_settings_that_differ():
    report = compare([[at(0, MANY)]], [[at(0, MANY)]], [[at(0, MANY)]])
    settings = (
        {'lr': '0.02', 'loss.type': 'A', 'loss.alpha': '4'},
        {
            'lr': '0.02',
            'loss.type': 'B',
        },
    )
    detectors = [
        replace(detector, settings=its)
        for detector, its in zip(report.detectors, (*settings, {}))
    ]
    report = replace(report, detectors=detectors)
    assert report.different_settings == {
        'loss.type': ['A', 'B', ''],
        'loss.alpha': ['4', '', ''],
    }
    assert '2 settings differ' in report.render()


def test_one_detector_has_no_rank():
    page = make_report([[at(0, MANY)]], [[at(0, MANY)]]).render()
    assert 'On all classes\nthe AP is 100.0 %' in page
    assert 'highest AP' not in page and 'class="best"' not in page


def test_a_detector_without_detections_is_named():
    page = make_report([[at(0, MANY)]], [[]]).render()
    assert 'nothing was detected in 1 images' in page
    page = make_report([[at(0, MANY)]], [[at(0, MANY)]]).render()
    assert 'nothing was detected' not in page


def test_examples_show_rare_classes_first():
    report = make_report(
        [
            [at(0, MANY)],
            [at(0, FEW)],
            [at(0, SOME)],
            [at(0, SINGLE), at(20, FEW)],
        ],
        [[]],
        folder='',
    )
    assert report.choose_examples() == [3, 1, 2, 0]


@pytest.mark.parametrize('is_lvis', [True, False])
def test_a_page_without_classifier_weights(tmp_path, is_lvis):
    Image.new('RGB', (60, 20)).save(tmp_path / 'a.png')
    truths = [[at(0, FEW), at(50, MANY)]]
    found = [[at(0, FEW, 0.5), at(50, FEW, 0.4), at(30, SOME, 0.3)]]
    page = make_report(truths, found, None, tmp_path, is_lvis).render()
    assert '&lt;dense&gt;' in page and '<dense>' not in page
    assert 'fc_cls' not in page
    found = '1 of 2 objects found, 1 of 1 rare; 1 of 1 false positives'
    assert found in page


def test_tooltips_of_the_weights():
    weights = np.diag([3.0, 2.0, 1.0, 4.0])
    page = make_report([[at(0, FEW)]], [[]], weights).render()
    assert (
        '<title>single (instance_count 1), &lt;dense&gt;: norm 4</title>'
        in page
    )
    assert page.count(': mean ') == 4
    assert 'norm of the row: &lt;dense&gt; −0.20' in page
    assert 'Examples' not in page


def test_a_page_without_counts(tmp_path):
    Image.new('RGB', (60, 20)).save(tmp_path / 'a.png')
    report = make_report([[at(0, FEW)]], [[at(0, FEW, 0.5)]])
    [detector] = report.detectors
    evaluation = evaluate(detector.evaluation.spec)
    detector = Detector('a', evaluation, 'a.json')
    truth = evaluation.spec.ground_truth
    page = Report([detector], ImageSet(truth, folder=tmp_path)).render()
    assert '1 of 1 objects found; 0 of 0 false positives' in page
    assert 'rare' not in re.sub('base64,[^"]*', '', page)
