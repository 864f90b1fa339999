"""Browses a dataset of mmpretrain by mmpretrain's own tool, with new versions of matplotlib too."""

import inspect
import runpy
from pathlib import Path
from typing import Any

import mmpretrain
from matplotlib import _tight_bbox
from matplotlib.figure import Figure

TOOL = Path(mmpretrain.__file__).parent / '.mim/tools/visualization/browse_dataset.py'
adjust_bbox = _tight_bbox.adjust_bbox


def adjust_with_renderer(figure: Figure, bbox: Any) -> Any:
    """matplotlib's function, which the tool calls without the renderer that new versions need."""
    return adjust_bbox(figure, bbox, figure.canvas.get_renderer())


def main() -> None:
    if 'renderer' in inspect.signature(adjust_bbox).parameters:
        _tight_bbox.adjust_bbox = adjust_with_renderer
    runpy.run_path(str(TOOL), run_name='__main__')


if __name__ == '__main__':
    main()
