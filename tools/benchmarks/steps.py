"""Shared parts of the benchmarks of training steps: the ImageNet models at 224, random batches, and steps."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from torch import Tensor

from smmix_mm.configs import CONFIGS
from smmix_mm.engine import build_model
from smmix_mm.models import MixingClassifier
from smmix_mm.registry import OPTIM_WRAPPERS
from smmix_mm.structures import Question

MODELS_TIMED = ('deit-tiny', 'deit-small', 'pvt-tiny', 'pvt-small')
NUM_CLASSES = 1000
SIDE = 224
# The input of train_step: decoded images and their labels.
Batch = dict[str, Any]


def build(
    name: str,
    augments: list[dict],
    device: torch.device,
    teacher: MixingClassifier | None = None,
    channels_last: bool = False,
) -> MixingClassifier:
    """Builds the ImageNet model of a name, with methods of equal probability."""
    cfg = Config.fromfile(CONFIGS / f'smmix/{name}_smmix_8xb128-300e_in1k.py')
    cfg.model.train_cfg = dict(augments=augments)
    torch.manual_seed(0)
    return build_model(cfg, teacher=teacher, channels_last=channels_last).to(device).train()


def random_batch(batch_size: int, device: torch.device) -> Batch:
    """Returns fixed noise images ``(B, 3, 224, 224)`` and labels on the host, like a data loader."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    samples = [DataSample().set_gt_label(label % NUM_CLASSES) for label in range(batch_size)]
    return dict(inputs=images.pin_memory() if device.type == 'cuda' else images, data_samples=samples)


def preprocess(model: MixingClassifier, batch: Batch) -> tuple[Tensor, list[DataSample], Tensor]:
    """Returns normalised images, samples with one-hot labels, and these labels ``(B, 1000)``."""
    data = model.data_preprocessor(batch, True)
    return data['inputs'], data['data_samples'], torch.stack([sample.gt_score for sample in data['data_samples']])


def autocast(device: torch.device, amp: str | None) -> AbstractContextManager:
    """Returns autocast to a dtype by name; None disables it."""
    return torch.autocast(device.type, getattr(torch, amp)) if amp else nullcontext()


def training_step(model: MixingClassifier, batch: Batch) -> Callable[[], None]:
    """Returns mmengine's own step: preprocessing, forward, losses, backward and AdamW."""
    optim_wrapper = build_optim_wrapper(model, None)

    def step() -> None:
        model.train_step(batch, optim_wrapper)

    return step


def build_optim_wrapper(model: MixingClassifier, amp: str | None, fused: bool = False) -> OptimWrapper:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused or None)
    if amp is None:
        return OptimWrapper(optimizer)
    return OPTIM_WRAPPERS.build(dict(type='smmix_mm.AmpOptimWrapper', dtype=amp, optimizer=optimizer))


def evaluation(
    model: MixingClassifier, images: Tensor, attention: bool = False, amp: str | None = None, scale: float = 1.0
) -> Callable[[], None]:
    """Returns the motivation pass, with or without reading the attention."""

    def run() -> None:
        with autocast(images.device, amp):
            model.motivate(Question(attention=attention, logits=True, by='model', scale=scale), images)

    return run


def mix(model: MixingClassifier, images: Tensor, targets: Tensor) -> Callable[[], None]:
    """Returns a call of a model's only method, which has no question."""

    def run() -> None:
        method, streams = model.mixing.draw()
        method(images.clone(), targets, (), streams)

    return run
