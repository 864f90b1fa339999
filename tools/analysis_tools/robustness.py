"""Tests a classifier out of distribution, and writes Markdown and JSON.

A model of ImageNet-1k is tested on ImageNet-A, -R, -Sketch, -Stylized and -C and on ImageNet-1k's validation set, as
far as their folders are below --data-root. Other models are tested on the test set of their config, corrupted by
smmix_mm.Corrupt. Only the dataset and its metric are replaced; model and test pipeline are those of the config.

    python tools/analysis_tools/robustness.py CONFIG CHECKPOINT --data-root data
"""

import argparse
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.fileio import dump, load

from smmix_mm.configs import CONFIGS
from smmix_mm.datasets.corrupt import STRENGTHS
from smmix_mm.datasets.image_folders import find_image_folder
from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import read_config
from smmix_mm.engine import build_test_runner, complete_dataloaders, keep_test
from smmix_mm.evaluation import ALEXNET_ERRORS, SEVERITIES, mean_corruption_error
from smmix_mm.registry import find_scope_and_name

OWN, CORRUPTED = 'corruptions', 'ImageNet-C'


@dataclass(frozen=True)
class Variant:
    """A dataset with classes of ImageNet-1k.

    Attributes:
        config: File in ``configs/_base_/datasets``.
        folders: Where it may be below ``--data-root``.
        size: The number of images that it was published with; of ImageNet-C, at each corruption and severity.
    """

    config: str
    folders: tuple[str, ...]
    size: int


# By the names in the metafiles.
VARIANTS = {
    'ImageNet-1k': Variant('imagenet_bs128_224.py', ('imagenet',), 50_000),
    'ImageNet-A': Variant('imagenet_a_bs128_224.py', ('imagenet-a',), 7_500),
    'ImageNet-R': Variant('imagenet_r_bs128_224.py', ('imagenet-r',), 30_000),
    'ImageNet-Sketch': Variant('imagenet_sketch_bs128_224.py', ('ImageNet-Sketch', 'imagenet-sketch', '.'), 50_889),
    'ImageNet-Stylized': Variant('imagenet_stylized_bs128_224.py', ('stylized-imagenet',), 50_000),
    CORRUPTED: Variant('imagenet_c_bs128_224.py', ('ImageNet-C', 'imagenet-c'), 50_000),
}


@dataclass
class Report:
    """What was found.

    Attributes:
        model: Name of the config.
        checkpoint: Its path.
        asked: The names of ``--datasets``.
        top1: Top-1 in per cent by dataset; of corruptions by ``'<corruption>/<severity>'`` below the dataset's name.
        images: The number of images of each.
        published: Top-1 in per cent that the SMMix paper gives for this model, by method and dataset.
        skipped: Why datasets were left out.
    """

    model: str
    checkpoint: str
    asked: list[str]
    top1: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='config of a classifier')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--data-root', type=Path, default=Path('data'), help='folder of the ImageNets (default: data)')
    parser.add_argument(
        '--datasets',
        nargs='+',
        choices=[*VARIANTS, OWN],
        metavar='NAME',
        help=f'which of {", ".join([*VARIANTS, OWN])}; default: all ImageNets for a model of 1000 classes, else {OWN}',
    )
    parser.add_argument(
        '--severities',
        nargs='+',
        type=int,
        choices=SEVERITIES,
        default=SEVERITIES,
        help='of corruptions (default: all)',
    )
    parser.add_argument('--out', type=Path, help='folder of the results; default: work_dirs/robustness/<config>')
    parser.add_argument('--amp', action='store_true', help='test in automatic mixed precision')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    return parser.parse_args()


def count_classes(cfg: Config, path: Path) -> int:
    """The number of classes of the model.

    Raises:
        ValueError: If the config is not of a classifier, or wraps its test set in another dataset.
    """
    classes = ((cfg.get('model') or {}).get('head') or {}).get('num_classes')
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if not classes or not dataset.get('pipeline'):
        raise ValueError(
            f'{path} has to be the config of a classifier, with model.head.num_classes and '
            f'test_dataloader.dataset.pipeline, but the former is {classes} and the latter {dataset.get("pipeline")}'
        )
    return classes


def choose(cfg: Config, classes: int, args: argparse.Namespace, report: Report) -> dict[str, dict[str, Any]]:
    """The datasets to test on, with their metrics, by name. The report gets what is left out, and why."""
    sets = {}
    for name in report.asked:
        if name == OWN:
            check_data_layout(cfg, ('test_dataloader',))
            sets |= corrupt_own(cfg.test_dataloader.dataset, args.severities)
        elif classes != 1000:
            report.skipped[name] = f'it has the 1000 classes of ImageNet-1k, but model.head.num_classes is {classes}'
        else:
            found, missing = find_variant(name, cfg.test_dataloader.dataset.pipeline, args.data_root, args.severities)
            sets |= found
            if missing:
                more = f' and {len(missing) - 1} further folders' if len(missing) > 1 else ''
                report.skipped[name] = f'there is no {missing[0]}{more}'
    return sets


def find_variant(
    name: str, pipeline: Sequence[Mapping[str, Any]], root: Path, severities: Iterable[int]
) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """The datasets of a variant that are below ``root``, with its metric, by name; and the folders that are missing."""
    stock = Config.fromfile(CONFIGS / '_base_/datasets' / VARIANTS[name].config)
    parts: dict[str, dict[str, Any]] = {name: {}}
    if name == CORRUPTED:
        pipeline = keep_size(pipeline)
        prefixes = [f'{corruption}/{severity}' for corruption in ALEXNET_ERRORS for severity in severities]
        parts = {f'{name}/{prefix}': dict(data_prefix=prefix) for prefix in prefixes}
    found, missing = {}, []
    for part, setting in parts.items():
        settings = {**stock.test_dataloader.dataset, **setting, 'pipeline': pipeline}
        places = [dict(settings, data_root=str(root / folder)) for folder in VARIANTS[name].folders]
        present = [place for place in places if find_image_folder(place).is_dir()]
        if present:
            found[part] = dict(dataset=present[0], evaluator=stock.test_evaluator)
        else:
            missing.append(find_image_folder(places[0]))
    return found, missing


def corrupt_own(dataset: Mapping[str, Any], severities: Iterable[int]) -> dict[str, dict[str, Any]]:
    """A test set as it is, and with each corruption."""
    accuracy = dict(type='mmpretrain.Accuracy', topk=(1,))
    # Some datasets, such as mmpretrain's CIFAR10, load images themselves.
    loaded = int('LoadImage' in str(dataset['pipeline'][0]['type']))
    sets = {OWN: dict(dataset=dataset, evaluator=accuracy)}
    for corruption in STRENGTHS:
        for severity in severities:
            pipeline = copy.deepcopy(list(dataset['pipeline']))
            pipeline.insert(loaded, dict(type='smmix_mm.Corrupt', corruption=corruption, severity=severity))
            changed = {**dataset, 'pipeline': pipeline}
            sets[f'{OWN}/{corruption}/{severity}'] = dict(dataset=changed, evaluator=accuracy)
    return sets


def keep_size(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Resizes images to the size of the centre crop: those of ImageNet-C are cropped already, and scored whole."""
    crops = [step['crop_size'] for step in pipeline if find_scope_and_name(step)[1] == 'CenterCrop']
    return [
        {**step, 'scale': crops[-1]} if crops and find_scope_and_name(step)[1] == 'ResizeEdge' else dict(step)
        for step in pipeline
    ]


def test(cfg: Config, report: Report) -> None:
    """Tests on all datasets of the config's test loop."""
    runner = build_test_runner(cfg)
    metrics = runner.test()
    report.top1 = {name: scores['accuracy/top1'] for name, scores in metrics.items()}
    report.images = dict(runner.test_loop.sizes)
    report.skipped |= runner.test_loop.failures


def find_published(model: str) -> dict[str, dict[str, float]]:
    """The paper's figures for the model of a config, by method and dataset; none for models that it does not have."""
    published = {}
    for method in ('CutMix', 'SMMix'):
        for entry in load(CONFIGS / method.lower() / 'metafile.yml')['Models']:
            same = entry['Name'].split('_')[:2] == [model.split('_')[0], method.lower()]
            if same and entry['Name'].endswith('in1k') and model.endswith('in1k'):
                figures = {result['Dataset']: result['Metrics'] for result in entry.get('Results', [])}
                published[method] = {name: metrics['Top 1 Accuracy'] for name, metrics in figures.items()}
    return published


def summarise(report: Report, name: str) -> dict[str, Any]:
    """The accuracies of ImageNet-C or of the own corruptions.

    Returns:
        dict[str, Any]: ``top1`` by corruption and severity, ``mean`` of each corruption and ``overall``, of those that
        were tested; of all of ImageNet-C also ``mce``. Empty if there are none.
    """
    top1: dict[str, dict[int, float]] = {}
    for part, value in report.top1.items():
        dataset, _, rest = part.partition('/')
        if dataset == name and rest:
            corruption, severity = rest.split('/')
            top1.setdefault(corruption, {})[int(severity)] = value
    if not top1:
        return {}
    mean = {corruption: fmean(scores.values()) for corruption, scores in top1.items()}
    summary = dict(top1=top1, mean=mean, overall=fmean(mean.values()))
    if name == CORRUPTED and sum(map(len, top1.values())) == len(ALEXNET_ERRORS) * len(SEVERITIES):
        summary['mce'] = mean_corruption_error({name: list(scores.values()) for name, scores in top1.items()})
    return summary


def write_markdown(report: Report) -> str:
    """The report as Markdown."""
    parts = [f'# Robustness of {report.model}', f'`{report.checkpoint}`; top-1 accuracy in per cent.']
    single = [name for name in report.asked if name in VARIANTS and name != CORRUPTED]
    if single:
        rows = {'this checkpoint': report.top1}
        rows |= {f'{method}, published': figures for method, figures in report.published.items()}
        parts.append(table(('', *single), [(row, *(top1.get(name) for name in single)) for row, top1 in rows.items()]))
        if report.published:
            parts.append('Published rows are from the SMMix paper (arXiv 2212.12977). They were not measured here.')
    images = [(name, f'{count} of {VARIANTS[name].size}') for name, count in report.images.items() if name in single]
    if images:
        parts.append(table(('Dataset', 'Images tested'), images))
    parts += write_grid(report, CORRUPTED, 'ImageNet-C') + write_grid(report, OWN, "The config's test set, corrupted")
    if report.skipped:
        parts.append('\n'.join(['Left out:', '', *(f'- {name}: {why}' for name, why in report.skipped.items())]))
    return '\n\n'.join(parts) + '\n'


def write_grid(report: Report, name: str, title: str) -> list[str]:
    """The parts of the report on ImageNet-C or on the own corruptions."""
    summary = summarise(report, name)
    if not summary:
        return []
    severities = sorted({severity for scores in summary['top1'].values() for severity in scores})
    rows = [
        (corruption, *map(scores.get, severities), summary['mean'][corruption])
        for corruption, scores in summary['top1'].items()
    ]
    rows.append(('all', *[''] * len(severities), summary['overall']))
    parts = [f'## {title}', table(('Corruption', *map(str, severities), 'mean'), rows)]
    if name in report.top1:
        parts.append(f'Without corruption: {report.top1[name]:.1f} ({report.images[name]} images).')
    if 'mce' in summary:
        parts.append(f'Mean corruption error (mCE): {summary["mce"]:.1f}, AlexNet: 100.')
    return parts


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown, with one decimal and ``-`` for None."""
    lines = [head, [':--', *['--:'] * (len(head) - 1)]]
    for row in rows:
        lines.append(['-' if cell is None else f'{cell:.1f}' if isinstance(cell, float) else cell for cell in row])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    classes = count_classes(cfg, args.config)
    name, out = args.config.stem, args.out or Path('work_dirs/robustness', args.config.stem)
    asked = args.datasets or (list(VARIANTS) if classes == 1000 else [OWN])
    report = Report(name, args.checkpoint, asked, published=find_published(name))
    sets = choose(cfg, classes, args, report)
    if sets:
        complete_dataloaders(cfg)
        fp16 = args.amp or (cfg.get('test_cfg') or {}).get('fp16', False)
        cfg.test_cfg = dict(type='smmix_mm.MultiTestLoop', sets=sets, fp16=fp16)
        cfg.work_dir = str(out)
        keep_test(cfg, args.checkpoint)
        test(cfg, report)
    out.mkdir(parents=True, exist_ok=True)
    text = write_markdown(report)
    (out / 'robustness.md').write_text(text)
    dump({**asdict(report), **{key: summarise(report, key) for key in (CORRUPTED, OWN)}}, out / 'robustness.json')
    print(f'\n{text}\nwritten to {out}/robustness.md and .json')
    if not report.top1:
        raise SystemExit(f'{name} was not tested on anything: {"; ".join(report.skipped.values())}')


if __name__ == '__main__':
    main()
