"""Plot of the gains in AP of methods over a control."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mmdet_longtail.visualization.figures import DETECTOR_COLORS

GROUPS = {'APr': 'rare', 'APc': 'common', 'APf': 'frequent'}

Gains = dict[str, dict[str, list[float]]]
"""Method -> key of `GROUPS` -> one gain in points of AP per seed."""


def plot_gains(datasets: Mapping[str, Gains], control: str) -> Figure:
    """Plot the gains, one panel per frequency group and a row per method.

    A small dot is a random seed, a large one the mean over the seeds. The
    method with the largest mean gain in APr is on top.

    Args:
        datasets (Mapping[str, Gains]): By name, drawn in one color each.
        control (str): The method that the gains are over.
    """
    in_rare: dict[str, list[float]] = {}
    for gains in datasets.values():
        for method, its in gains.items():
            in_rare.setdefault(method, []).extend(its['APr'])
    methods = sorted(in_rare, key=lambda m: -np.mean(in_rare[m] or [-np.inf]))
    size = 10, 1.3 + 0.28 * len(methods)
    figure = Figure(size, layout='constrained')
    panels = figure.subplots(1, len(GROUPS), sharey=True)
    for axes, (group, label) in zip(panels, GROUPS.items()):
        axes.axvline(0, color='0.7', linewidth=1, zorder=0)
        axes.grid(axis='y', alpha=0.2)
        for i, (name, gains) in enumerate(datasets.items()):
            color = DETECTOR_COLORS[1:][i % 5]
            shift = 0.2 * (i - (len(datasets) - 1) / 2)
            seeds = [
                (value, methods.index(method) + shift)
                for method, its in gains.items()
                for value in its[group]
            ]
            means = [
                (np.mean(its[group]), methods.index(method) + shift)
                for method, its in gains.items()
                if its[group]
            ]
            x, y = np.array(seeds).reshape(-1, 2).T
            axes.plot(x, y, '.', color=color, alpha=0.4)
            x, y = np.array(means).reshape(-1, 2).T
            axes.plot(x, y, 'o', color=color, label=name)
        axes.set_title(label)
        axes.set_xlabel(group)
        axes.spines[['top', 'right']].set_visible(False)
    figure.supxlabel(f'gain over {control}, points of AP')
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    if len(datasets) > 1:
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc='outside upper center',
            ncols=len(datasets),
            frameon=False,
        )
    return figure
