"""The curves of a task, drawn by plotly."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from plotly.colors import hex_to_rgb, qualitative
from plotly.subplots import make_subplots

from .groups import Curve, Group

PALETTE = qualitative.T10
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
DASHES = ('solid', 'dash', 'dot')
# Plotly's templates, on the background of the page, from which plotly takes that of labels.
THEMES = dict(light=('plotly_white', '#ffffff'), dark=('plotly_dark', '#14171a'))
PLOT_HEIGHT = 230
# Between two plots: the numbers below the upper one and the title of the lower one.
GAP = 60


def draw_curves(names: Sequence[str], groups: Sequence[Group], read: Callable[[Group, str], Curve]) -> dict[str, Any]:
    """Draws one plot per name, all with the same x axis, and in each a line per group.

    A group of several runs is drawn as the mean with a band of one sample standard deviation.

    Args:
        names (Sequence[str]): Names of logged values.
        groups (Sequence[Group]): Of one task.
        read (Callable[[Group, str], Curve]): ``Group.step_curve`` or ``Group.score_curve``.

    Returns:
        dict: In plotly's JSON format, ``data``, and ``layout`` by the number of columns.
    """
    traces, listed = [], set()
    for plot, name in enumerate(names, 1):
        for index, group in enumerate(groups):
            band_and_line = _draw_group(read(group, name), group, index, plot)
            # One entry of the legend switches a group in all plots.
            if band_and_line and group not in listed:
                band_and_line[-1].showlegend = True
                listed.add(group)
            traces += band_and_line
    longest = max((len(trace.x) for trace in traces), default=0)
    return dict(
        data=[trace.to_plotly_json() for trace in traces],
        layout={columns: _layout(names, columns, longest).to_plotly_json() for columns in (1, 2)},
    )


def templates() -> dict[str, Any]:
    """Returns plotly's own light and dark look."""
    return {
        theme: go.layout.Template(pio.templates[name])
        .update(layout=dict(paper_bgcolor=background, plot_bgcolor=background))
        .to_plotly_json()
        for theme, (name, background) in THEMES.items()
    }


def _draw_group(curve: Curve, group: Group, index: int, plot: int) -> list[go.Scatter]:
    """Returns the band, if there are several runs, and the line of a group; nothing if it is empty."""
    steps, values = curve
    if not steps:
        return []
    colour = PALETTE[index % len(PALETTE)]
    # Plotly reads tags in names.
    shared = dict(xaxis=f'x{plot}', yaxis=f'y{plot}', legendgroup=str(index), name=html.escape(group.name, quote=False))
    means = [_finite(np.mean(row)) for row in values]
    line = go.Scatter(
        x=steps,
        y=means,
        mode='lines' if len(steps) > 1 else 'markers',
        line=dict(color=colour, width=1.8, dash=DASHES[index // len(PALETTE) % len(DASHES)]),
        hovertemplate='%{y:.4~g}',
        showlegend=False,
        **shared,
    )
    if len(values[0]) == 1:
        return [line]
    spreads = [None if mean is None else float(np.std(row, ddof=1)) for mean, row in zip(means, values, strict=True)]
    line.customdata = spreads
    line.hovertemplate = '%{y:.4~g} ± %{customdata:.2~g}'
    known = [point for point in zip(steps, means, spreads, strict=True) if point[1] is not None]
    band = go.Scatter(
        x=[step for step, *_ in (*known, *reversed(known))],
        y=[*(mean + spread for _, mean, spread in known), *(mean - spread for _, mean, spread in reversed(known))],
        mode='lines',
        line=dict(width=0),
        fill='toself',
        fillcolor=f'rgba({", ".join(map(str, hex_to_rgb(colour)))}, 0.16)',
        hoverinfo='skip',
        showlegend=False,
        **shared,
    )
    return [band, line]


def _layout(names: Sequence[str], columns: int, points: int) -> go.Layout:
    columns = min(columns, len(names)) or 1
    rows = math.ceil(len(names) / columns) or 1
    inner = rows * PLOT_HEIGHT + (rows - 1) * GAP
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[html.escape(name, quote=False) for name in names],
        vertical_spacing=GAP / inner,
        horizontal_spacing=0.08,
    )
    # No marks between two epochs.
    figure.update_xaxes(matches='x', nticks=min(8, points))
    figure.layout.xaxis.matches = None
    figure.update_yaxes(nticks=6)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        height=inner + 100,
        margin=dict(l=48, r=12, t=68, b=32),
        hovermode='x unified',
        # A label wherever the mouse is.
        hoverdistance=-1,
        legend=dict(orientation='h', x=0, y=1 + 36 / inner, yanchor='bottom'),
        template=None,
        font_family=FONT,
    )
    return figure.layout


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
