"""The histograms show the shares that they are given."""

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from smmix_mm.visualization import draw_share_histograms

PANELS = {
    'cutmix': {'attention': [0.5, 0.51, 0.9, 0.1], 'area': [0.0, 1.0]},
    'smmix': {'attention': [0.3]},
    'objects': {'attention': [0.2] * 10, 'area': [0.1] * 10},
    'windows': {'most': [1.0] * 3, 'random': [0.5] * 3, 'least': [0.0] * 3},
}


@pytest.fixture
def axes(tmp_path, monkeypatch):
    """Draws the panels; the axes that hold one."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda figure, *args, **kw: (figures.append(figure), save(figure, *args, **kw))
    )
    draw_share_histograms(PANELS, tmp_path / 'folder/shares.png')
    assert cv2.imread(str(tmp_path / 'folder/shares.png')) is not None
    (figure,) = figures
    return [axis for axis in figure.axes if axis.get_title()]


def test_bars_count_the_shares_of_each_group(axes):
    assert [axis.get_title() for axis in axes] == list(PANELS)
    for axis, groups in zip(axes, PANELS.values(), strict=True):
        assert len(axis.patches) == len(groups)
        for patch, shares in zip(axis.patches, groups.values(), strict=True):
            # The outline of stepped bars, closed along the bottom.
            left, heights = patch.get_xy()[1:51:2].T
            counts, edges = np.histogram(shares, np.linspace(0, 1, 26))
            assert left == pytest.approx(edges[:-1])
            assert heights == pytest.approx(100 * counts / len(shares))


def test_lines_and_legend_say_the_means(axes):
    for axis, groups in zip(axes, PANELS.values(), strict=True):
        means = [np.mean(shares) for shares in groups.values()]
        assert [line.get_xdata()[0] for line in axis.lines] == pytest.approx(means)
        texts = [text.get_text() for text in axis.get_legend().get_texts()]
        assert texts == [f'{name}, mean {mean:.2f}' for name, mean in zip(groups, means, strict=True)]


def test_no_bar_is_behind_the_legend(axes):
    for axis in axes:
        highest = max(patch.get_xy()[:, 1].max() for patch in axis.patches)
        box = axis.get_legend().get_window_extent().transformed(axis.transData.inverted())
        assert box.y0 >= highest
