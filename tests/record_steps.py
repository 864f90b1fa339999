"""Records sixty training steps of every method, to compare them bit by bit before and after a change of structure.

Usage, on one machine: ``python tests/record_steps.py before.json`` with the old code and
``python tests/record_steps.py after.json --compare before.json`` with the new. Figures of other machines differ in the
last bits.
"""

import argparse
import copy
import hashlib
import itertools
import json
import sys
from pathlib import Path

import torch
from conftest import CLASSES, METHODS, backbone_cfg, head_cfg, neck_cfg, randomize
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from smmix_mm.registry import MODELS

STEPS = 60
# Every method with settings for images of 32 x 32, and SMMix's variants.
RUNS = {
    **METHODS,
    'AttentiveMix, activation': dict(type='smmix_mm.AttentiveMix', cell_size=8, by='activation'),
    'SMMix': dict(type='smmix_mm.SMMix', motivated_by='model'),
    'SMMix, teacher': dict(type='smmix_mm.SMMix'),
    'SMMix, CutMix placement': dict(type='smmix_mm.SMMix', placement='cutmix', motivated_by='model'),
    'SMMix, paper': dict(
        type='smmix_mm.SMMix',
        motivated_by='model',
        region_rule='ratio',
        region_head='shared',
        consistency='probabilities',
    ),
    'SMMix, half motivation': dict(type='smmix_mm.SMMix', motivated_by='model', motivation_scale=0.5),
    'SMMix, TransMix labels': dict(type='smmix_mm.SMMix', motivated_by='model', label_reconstruction='transmix'),
    'SMMix, TokenMix labels': dict(type='smmix_mm.SMMix', motivated_by='model', label_reconstruction='tokenmix'),
    'SMMix, teacher, TokenMix labels': dict(type='smmix_mm.SMMix', label_reconstruction='tokenmix'),
}
FAMILIES = ('vit', 'pvt', 'cait', 'swin')


def record(name: str, family: str) -> dict:
    """Losses of each step, and a checksum of all weights at the end."""
    MessageHub._instance_dict.clear()
    torch.manual_seed(0)
    hub = MessageHub.get_instance(f'{name} {family}')
    hub.update_info('seed', 0)
    hub.update_info('max_iters', STEPS)
    model = build(family, [copy.deepcopy(RUNS[name])])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(STEPS):
        hub.update_info('iter', step)
        # Odd batches too.
        images, labels = torch.randn(4 + step % 2, 3, 32, 32), torch.arange(4 + step % 2)
        samples = [DataSample().set_gt_score(score) for score in torch.eye(CLASSES)[labels]]
        found = model.loss(images, samples)
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
        losses.append({key: value.item() for key, value in found.items()})
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return dict(losses=losses, weights=digest.hexdigest())


def build(family: str, augments: list[dict]) -> torch.nn.Module:
    parts = dict(backbone=backbone_cfg(family), neck=neck_cfg(family), head=head_cfg(family))
    teacher = randomize(MODELS.build(dict(type='mmpretrain.ImageClassifier', **copy.deepcopy(parts))))
    # Dropped paths show whether the passes still draw in the same order.
    if family != 'swin':
        parts['backbone']['drop_path_rate'] = 0.1
    model = MODELS.build(
        dict(type='smmix_mm.MixingClassifier', teacher=teacher, train_cfg=dict(augments=augments), **parts)
    )
    return randomize(model).train()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument('--compare', type=Path, help='file of an earlier record')
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    # Swin's windows do not fit images of half the size.
    runs = [run for run in itertools.product(RUNS, FAMILIES) if run != ('SMMix, half motivation', 'swin')]
    found = {', '.join(run): record(*run) for run in runs}
    args.out.write_text(json.dumps(found))
    if not args.compare:
        return 0
    before = json.loads(args.compare.read_text())
    common = found.keys() & before.keys()
    differ = [name for name in found if name in common and found[name] != before[name]]
    for name in differ:
        pairs = zip(found[name]['losses'], before[name]['losses'], strict=True)
        first = next((step for step, (new, old) in enumerate(pairs) if new != old), 'none')
        print(f'{name}: differs; first step with another loss: {first}')
    print(f'{len(common) - len(differ)} of {len(common)} runs of {STEPS} steps are the same, bit by bit')
    if other := found.keys() ^ before.keys():
        print(f'in one of the records alone: {", ".join(sorted(other))}')
    return bool(differ)


if __name__ == '__main__':
    sys.exit(main())
