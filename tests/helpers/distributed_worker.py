"""What the tests of distributed training run in several processes, and the same in one process.

Started by torchrun: ``distributed_worker.py FOLDER CASE ...``. Every rank writes its results.
"""

import copy
import sys
from pathlib import Path
from unittest import mock

import torch
from conftest import CLASSES, backbone_cfg, head_cfg, neck_cfg, randomize
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, HOOKS, init_default_scope
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import Dataset

from smmix_mm.engine import build_runner, distributed_run
from smmix_mm.engine.distributed import wrap_on_cpu
from smmix_mm.mixing import SMMix
from smmix_mm.registry import MODELS

SEED = 5
STEPS = 4
HALF = 3
EMA_MOMENTUM = 0.25
MIXUP = dict(type='mmpretrain.Mixup', alpha=0.8)
SMMIX = dict(type='smmix_mm.SMMix')
# Family of the model and its methods; a teacher stands by.
CASES = {
    'SMMix': ('vit', [SMMIX], [1.0]),
    # The region classifier is there and left out.
    'Mixup': ('vit', [MIXUP, SMMIX], [1.0, 0.0]),
    'Mixup+SMMix': ('pvt', [MIXUP, SMMIX], [0.5, 0.5]),
    'TransMix': ('cait', [dict(type='smmix_mm.TransMix')], [1.0]),
    'TokenMix': ('vit', [dict(type='smmix_mm.TokenMix', patch_size=8, extra_tokens=2)], [1.0]),
    'AutoMix': ('vit', [dict(type='smmix_mm.AutoMix')], [1.0]),
    'all': ('pvt', [MIXUP, SMMIX, dict(type='smmix_mm.TransMix'), dict(type='smmix_mm.AutoMix')], None),
}


def model_cfg(case: str) -> dict:
    family, augments, probs = CASES[case]
    return dict(
        type='smmix_mm.MixingClassifier',
        backbone=backbone_cfg(family),
        neck=neck_cfg(family),
        head=head_cfg(family),
        train_cfg=dict(augments=copy.deepcopy(augments), probs=probs),
    )


def build_model(case: str) -> nn.Module:
    """The model of a case, the same in every process."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    teacher = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone_cfg('vit'), head=head_cfg('vit')))
    return randomize(MODELS.build(dict(model_cfg(case), teacher=randomize(teacher)))).train()


def batch(step: int, rank: int) -> dict:
    """What a dataloader hands over."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    images = torch.randint(0, 256, (HALF, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (HALF,), generator=generator)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(label) for label in labels])


def enter_step(step: int) -> None:
    hub = MessageHub.get_instance('distributed_worker')
    hub.update_info('seed', SEED)
    hub.update_info('iter', step)


def compute_loss(model: nn.Module, module: nn.Module, data: dict) -> Tensor:
    """One forward through ``model``, which is ``module`` or a wrapper of it."""
    data = module.data_preprocessor(data, training=True)
    return module.parse_losses(model(**data, mode='loss'))[0]


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def watch(module: nn.Module) -> list[tuple]:
    """Notes method and region's area of every step, and where the regions of the batch lie."""
    seen: list[tuple] = []

    def note(method: nn.Module, _: tuple, mixed: object) -> None:
        # The other methods draw their masks on each rank, or take them from the images.
        size = int(mixed.source_mask[0].sum()) if isinstance(method, SMMix) else None
        seen.append((type(method).__name__, size, mixed.images.sum().item()))

    for method in module.mixing.methods:
        method.register_forward_hook(note)
    return seen


def train_in_ddp(case: str, failing: tuple[int, int] | None = None) -> dict:
    """Some steps of DDP as a config gets it, without ``find_unused_parameters``."""
    module = build_model(case)
    model = MMDistributedDataParallel(module, broadcast_buffers=False)
    seen, history = watch(module), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for step in range(STEPS):
        enter_step(step)
        if (step, get_rank()) == failing:
            raise RuntimeError(f'rank {get_rank()} fails in step {step}')
        optimizer.zero_grad()
        compute_loss(model, module, batch(step, get_rank())).backward()
        history.append(gradients(module))
        optimizer.step()
    return dict(gradients=history, seen=seen, weights=module.state_dict())


def train_in_one_process(case: str, ranks: int, micro_steps: int = 1) -> dict:
    """The same steps, the parts of the batch one after the other, each with the draws of its rank."""
    modules = [build_model(case) for _ in range(ranks)]
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.05) for module in modules]
    history = []
    for step in range(STEPS):
        enter_step(step)
        for rank, module in enumerate(modules):
            with mock.patch('smmix_mm.mixing.random_mixing.get_rank', return_value=rank):
                (compute_loss(module, module, batch(step, rank)) / micro_steps).backward()
        if (step + 1) % micro_steps:
            continue
        parts = [gradients(module) for module in modules]
        means = {name: sum(part[name] for part in parts) / ranks for name in parts[0]}
        history.append(means)
        for module, optimizer in zip(modules, optimizers, strict=True):
            for name, parameter in module.named_parameters():
                if name in means:
                    parameter.grad = means[name].clone()
            optimizer.step()
            optimizer.zero_grad()
    return dict(gradients=history, weights=modules[0].state_dict())


def accumulate(case: str) -> dict:
    """Two updates of two micro-steps each, by mmengine's own wrapper."""
    module = build_model(case)
    model = MMDistributedDataParallel(module, broadcast_buffers=False)
    wrapper = OptimWrapper(torch.optim.SGD(module.parameters(), lr=0.05), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, STEPS)
    for step in range(STEPS):
        enter_step(step)
        model.train_step(batch(step, get_rank()), wrapper)
    return dict(weights=module.state_dict())


@DATASETS.register_module()
class Pictures(Dataset):
    """Images and labels of all steps and two ranks."""

    def __init__(self) -> None:
        batches = [batch(step, rank) for step in range(STEPS) for rank in range(2)]
        self.samples = [pair for data in batches for pair in zip(data['inputs'], data['data_samples'], strict=True)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return dict(zip(('inputs', 'data_samples'), self.samples[index], strict=True))


@HOOKS.register_module()
class Notes(Hook):
    """Keeps loss and weights of every step, and the settings of the optimizer."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: list[dict[str, Tensor]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())
        self.weights.append({name: value.clone() for name, value in runner.model.module.state_dict().items()})


def run(folder: Path, case: str, kind: str, **settings: object) -> dict:
    """An epoch of mmengine's runner on images in memory."""
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=model_cfg(case),
            work_dir=str(folder / f'{kind}-{case}'),
            train_dataloader=dict(
                batch_size=HALF,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='pseudo_collate'),
                dataset=dict(type='Pictures'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            # Shapes decide what decays, and the norm of all gradients how far a step goes.
            optim_wrapper=dict(
                optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.5),
                clip_grad=dict(max_norm=0.5, error_if_nonfinite=True, foreach=False),
                paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
            ),
            env_cfg=dict(dist_cfg=dict(backend='nccl')),
            experiment_name=f'{kind}-{case}',
            randomness=dict(seed=SEED),
            launcher='pytorch',
            log_level='ERROR',
            **settings,
        )
    )
    if kind.endswith('amp'):
        cfg.optim_wrapper.update(type='smmix_mm.AmpOptimWrapper', dtype='bfloat16')
    if kind.endswith('value'):
        cfg.optim_wrapper.clip_grad = dict(type='value', clip_value=1e-3)
    wrap_on_cpu(cfg)
    runner = build_runner(cfg)
    notes = Notes()
    runner.register_hook(notes)
    runner.train()
    state = runner.strategy.model_state_dict() if kind.startswith('fsdp') else runner.model.module.state_dict()
    averaged = [hook.ema_model.module.state_dict() for hook in runner.hooks if isinstance(hook, EMAHook)]
    return dict(losses=notes.losses, history=notes.weights, weights=state, averaged=averaged)


def run_case(name: str, folder: Path) -> dict:
    kind, case = name.split(':')
    if kind == 'train':
        return train_in_ddp(case)
    if kind == 'fail':
        return train_in_ddp(case, failing=(2, 1))
    if kind == 'accumulate':
        return accumulate(case)
    if kind.startswith('fsdp'):
        return run(folder, case, kind, runner_type='FlexibleRunner', strategy=dict(type='smmix_mm.FSDPStrategy'))
    ema = [dict(type='EMAHook', momentum=EMA_MOMENTUM)] if kind == 'ema' else []
    return run(folder, case, kind, custom_hooks=ema)


@record
def main() -> None:
    folder = Path(sys.argv[1])
    with distributed_run(Config(dict(launcher='pytorch'))):
        for name in sys.argv[2:]:
            torch.save(run_case(name, folder), folder / f'{name}-{get_rank()}of{get_world_size()}.pt')
    print(f'threads of gloo left: {sum(gloo_threads())}')


def gloo_threads() -> list[bool]:
    names = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]
    return ['gloo' in name for name in names]


if __name__ == '__main__':
    main()
