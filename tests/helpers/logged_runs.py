"""Work directories as mmengine leaves them, written by hand, and what a report says of them."""

import html
import json
import re
from pathlib import Path
from typing import Any

HEADER = """2026/11/26 18:00:00 - mmengine - INFO -
------------------------------------------------------------
System environment:
    sys.platform: linux
    numpy_random_seed: 7
    PyTorch: 2.12.1
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3

    MMEngine: 0.10.12

Runtime environment:
    seed: 7
    GPU number: {devices}
------------------------------------------------------------

2026/11/26 18:00:00 - mmengine - INFO - Config:
"""


def step(number: int, epoch: int | None = 1, **values: float) -> dict[str, Any]:
    by_epoch = {} if epoch is None else dict(epoch=epoch)
    return dict(lr=0.1, data_time=0.1, loss=1.0, time=0.5, **by_epoch, iter=number, memory=100, step=number) | values


def score(number: int, **values: float) -> dict[str, Any]:
    return dict(time=0.1, data_time=0.1, step=number) | {
        name.replace('__', '/'): value for name, value in values.items()
    }


def write_run(
    folder: Path, *rows: dict, time: str = '20260101_000000', config: str | dict | None = None, devices: int = 1
) -> Path:
    """One start of a run; ``config`` is the text of its config, or some of its settings."""
    data = folder / time / 'vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    if not isinstance(config, str):
        settings = dict(default_scope='mmpretrain', train_cfg=dict(max_epochs=1), work_dir=str(folder)) | (config or {})
        config = '\n'.join(f'{name} = {value!r}' for name, value in settings.items())
    (data / 'config.py').write_text(config)
    (folder / time / f'{time}.log').write_text(HEADER.format(devices=devices) + config)
    return folder


def read_tables(page: str) -> list[list[list[str]]]:
    """The cells of all tables."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.DOTALL)]
            for row in re.findall(r'<tr>(.*?)</tr>', table, re.DOTALL)
        ]
        for table in re.findall(r'<table.*?</table>', page, re.DOTALL)
    ]


def read_curves(page: str) -> dict[tuple[str, str], tuple[list, list]]:
    """The x and y of all lines, by the title of their plot and the name of their group."""
    curves = {}
    for chart in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        content = json.loads(chart)
        titles = [annotation['text'] for annotation in content['layout']['1']['annotations']]
        for trace in content['data']:
            if trace.get('hoverinfo') != 'skip':
                title = titles[int(trace['xaxis'][1:] or 1) - 1]
                curves[title, trace['name']] = (list(trace['x']), list(trace['y']))
    return curves
