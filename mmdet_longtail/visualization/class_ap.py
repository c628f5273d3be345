"""Plot of the average precision per class."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mmdet_longtail.evaluation.functional import Evaluation
from mmdet_longtail.structures.class_statistics import ClassGroup
from mmdet_longtail.visualization.figures import (
    INK,
    display_name,
    finish,
    group_colors,
)

NUM_NAMES = 5


def plot_class_ap(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Plot the AP of each class against that of the first detector.

    The classes that differ most are named.

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
    top = np.fmax.reduce([*x, *np.ravel(ys)], initial=10)
    limits = -0.02 * top, 1.08 * top
    names = evaluations[first].spec.ground_truth.class_names
    colors = group_colors(groups)
    zorders = np.linspace(3, 2, len(groups))  # Rare classes are on top.
    for panel, name, y in zip(panels, others, ys, strict=True):
        panel.axline((0, 0), slope=1, color='0.7', linewidth=1, zorder=0)
        for group, color, zorder in zip(groups, colors, zorders):
            panel.plot(
                x[group.members],
                y[group.members],
                'o',
                color=color,
                label=group.name,
                markeredgewidth=0,
                alpha=0.7,
                zorder=zorder,
            )
        difference = np.nan_to_num(np.abs(y - x))
        for c in np.argsort(-difference, kind='stable')[:NUM_NAMES]:
            if difference[c]:
                panel.annotate(
                    display_name(names[c]),
                    (x[c], y[c]),
                    (4, 4),
                    textcoords='offset points',
                    fontsize='small',
                    color=INK,
                )
        panel.set(aspect='equal', xlim=limits, ylim=limits)
        panel.set_xlabel(f'{first}, AP of the class in %')
        panel.set_ylabel(f'{name}, AP of the class in %')
        finish(panel, 4)
    return figure
