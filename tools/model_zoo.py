"""Writes docs/model_zoo.md from model-index.yml and the metafiles: all configs with their published figures."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# How the names of configs begin, see configs/README.md; those of classification begin with the model.
TASKS = {'mask-rcnn': 'Object Detection', 'retinanet': 'Object Detection', 'fpn': 'Semantic Segmentation'}
HEAD = """# Model zoo

All configs of this repository. `python tools/model_zoo.py` writes this page from the metafiles beside the configs.

Figures with a source are those of the paper that it links to. They were not measured with this repository, and no
weights are published here. [Recipes of published figures](recipes.md) compares each recipe with ours. What was measured
here is on the pages that the last column links to, with command, machine and seeds.

`mim search smmix_mm` shows the same entries; see [Install a wheel](get_started.md#install-a-wheel).
"""


def read_entries() -> Iterator[dict]:
    """The models of all metafiles in the order of the index. Their metadata are completed by the collection's."""
    for metafile in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((ROOT / metafile).read_text())
        collections = {collection['Name']: collection for collection in content['Collections']}
        for model in content['Models']:
            collection = collections[model['In Collection']]
            metadata = {**collection.get('Metadata', {}), **model['Metadata']}
            yield {**model, 'Metadata': metadata, 'README': collection['README']}


def write_row(entry: dict) -> str:
    """One row of a table.

    Raises:
        ValueError: If the entry has figures, but not where they are from.
    """
    metadata, results = entry['Metadata'], entry.get('Results', [])
    if results and 'Figures From' not in metadata:
        raise ValueError(f'{entry["Name"]} has Results, so its Metadata need `Figures From`, the address of the paper')
    figures = [
        f'{result["Dataset"]}: ' + ', '.join(f'{name} {value}' for name, value in result['Metrics'].items())
        for result in results
    ]
    parameters = metadata.get('Parameters')
    source = metadata['Figures From'] if results else None
    cells = [
        f'[{entry["Name"]}](../{entry["Config"]})',
        f'[{entry["In Collection"]}](../{entry["README"]})',
        metadata['Training Data'],
        f'{parameters / 1e6:.2f}' if parameters else '-',
        '<br>'.join(figures) or '-',
        f'[arXiv {source.rpartition("/")[2]}]({source})' if source else '-',
        ', '.join(f'[{Path(page).name}](../{page})' for page in metadata.get('Measured Here', [])) or '-',
    ]
    return f'| {" | ".join(cells)} |'


def write_page() -> str:
    """The page, with one table for each task."""
    rows: dict[str, list[str]] = {'Image Classification': [], 'Object Detection': [], 'Semantic Segmentation': []}
    for entry in read_entries():
        task = TASKS.get(entry['Name'].split('_')[0], 'Image Classification')
        rows[task].append(write_row(entry))
    head = '| Config | Folder | Training data | Parameters (M) | Published | Source | Measured here |\n'
    head += '| :-- | :-- | :-- | --: | :-- | :-- | :-- |\n'
    tables = [f'\n## {task.capitalize()}\n\n{head}' + '\n'.join(lines) + '\n' for task, lines in rows.items()]
    return HEAD + ''.join(tables)


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / 'docs/model_zoo.md').write_text(write_page())
