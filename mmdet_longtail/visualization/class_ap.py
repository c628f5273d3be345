"""Plot of the average precision per class."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mmdet_longtail.evaluation.functional import Evaluation
from mmdet_longtail.structures.class_statistics import ClassGroup
from mmdet_longtail.visualization.figures import finish, group_colors


def plot_class_ap(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Plot the AP of each class against that of the first detector.

    Args:
        evaluations (Mapping[str, Evaluation]): By name, at least two; each
            after the first has a panel.
    """
    first, *others = evaluations
    figure = Figure((0.6 + 4.4 * len(others), 4.8), layout='constrained')
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    x, *ys = (100 * e.class_ap['AP'] for e in evaluations.values())
    groups = [g for g in evaluations[first].groups if '+' not in g.name]
    groups = groups or [ClassGroup('AP', 'one class', np.full(len(x), True))]
    limits = -2, np.fmax.reduce([*x, *np.ravel(ys)], initial=10) + 2
    for panel, name, y in zip(panels, others, ys, strict=True):
        panel.axline((0, 0), slope=1, color='0.7', linewidth=1, zorder=0)
        for group, color in zip(groups, group_colors(groups)):
            panel.plot(
                x[group.members],
                y[group.members],
                'o',
                color=color,
                label=group.name,
                markeredgewidth=0,
                alpha=0.7,
            )
        panel.set(aspect='equal', xlim=limits, ylim=limits, ylabel=name)
        panel.set_xlabel(f'{first}, AP of the class in %')
        finish(panel, 4)
    return figure
