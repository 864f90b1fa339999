"""The data of the worked examples of docs/own_data.md, drawn by the script on that page."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / 'docs/own_data.md'


def draw_shapes(folder: Path, monkeypatch) -> Path:
    """Draws all three data sets below a folder, and returns that of ``folders``, ``coco`` and ``masks``."""
    (script,) = re.findall(r'<!-- example: shapes -->\n```python\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        exec(script, {})
    return folder / 'data/shapes'


def write_class_values(root: Path) -> None:
    """As the page shows it."""
    (lines,) = re.findall(r'```text\n(0 background.*?)```', DOCUMENT.read_text(), re.DOTALL)
    (root / 'masks/class_values.txt').write_text(lines)


def write_lists(root: Path) -> None:
    """Lists the images as they were drawn for training and validation."""
    for split in ('train', 'val'):
        lines = [
            f'{kind}/{path.name} {label}\n'
            for label, kind in enumerate(('disc', 'square'))
            for path in sorted((root / 'folders' / kind).glob(f'{split} *.png'))
        ]
        (root / f'folders/{split}.txt').write_text(''.join(lines))
    (root / 'folders/classes.txt').write_text('disc\nsquare\n')
