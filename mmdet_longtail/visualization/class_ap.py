"""Plot of the average precision per class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from mmdet_longtail.evaluation.functional import Evaluation
from mmdet_longtail.visualization.figures import GROUP_COLORS


def plot_class_ap(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Plot the AP of each class against that of the first detector.

    Args:
        evaluations (Mapping[str, Evaluation]): By name, at least two.

    Returns:
        Figure: One panel per further detector.
    """
    first, *others = evaluations
    figure = Figure((0.6 + 4.4 * len(others), 4.8), layout='constrained')
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    class_ap = [100 * e.class_ap['AP'] for e in evaluations.values()]
    limits = -2, np.fmax.reduce(np.ravel(class_ap), initial=10) + 2
    for panel, name, y in zip(panels, others, class_ap[1:], strict=True):
        panel.axline((0, 0), slope=1, color='0.7', linewidth=1, zorder=0)
        for label, members, color in _point_groups(evaluations[first]):
            panel.plot(
                class_ap[0][members],
                y[members],
                'o',
                color=color,
                label=label,
                markeredgewidth=0,
                alpha=0.7,
            )
        panel.set(
            aspect='equal',
            xlim=limits,
            ylim=limits,
            xlabel=f'{first}, AP of the class in %',
            ylabel=name,
        )
        panel.spines[['top', 'right']].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside upper center', ncols=4, frameon=False
    )
    return figure


def _point_groups(
    evaluation: Evaluation,
) -> list[tuple[str, np.ndarray, object]]:
    """Return label, members (C,) and color of each group of points."""
    C = evaluation.spec.ground_truth.num_classes
    if not evaluation.groups:
        return [('one class', np.ones(C, bool), GROUP_COLORS['frequent'])]
    groups = [g for g in evaluation.groups if '+' not in g.name]
    shades = colormaps['viridis'](np.linspace(0.85, 0.15, len(groups)))
    return [
        (group.name, group.members, GROUP_COLORS.get(group.name, shade))
        for group, shade in zip(groups, shades, strict=True)
    ]
