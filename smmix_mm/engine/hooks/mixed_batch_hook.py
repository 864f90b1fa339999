"""Shows what a training step was trained on."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from smmix_mm.mixing import MixingMethod
from smmix_mm.registry import HOOKS
from smmix_mm.streams import seeded_globals
from smmix_mm.structures import Features, MixedBatch
from smmix_mm.unwrapping import unwrap_model
from smmix_mm.visualization import (
    Panel,
    check_normalisation,
    describe_shares,
    draw_panels,
    name_method,
    to_array,
    to_pictures,
)

# Panels beside each other.
COLUMNS = 4


@HOOKS.register_module()
class MixedBatchHook(Hook):
    """Shows mixed images of every n-th training step, with the shares of their labels, in the run's backends.

    The first images of the batch that the step was trained on are drawn, with the labels that it was trained on, and
    handed to the ``visualizer`` as the image ``mixed_batch``. The hook only looks at what the step computes: it runs no
    model and draws no random number, so that the run ends with the same bits as without it. Other steps cost nothing.
    Of several processes the first alone shows its batch.

    Args:
        interval (int): Number of steps from one picture to the next, at least 1. Defaults to 1000.
        num_images (int): Number of images shown, at least 1. Defaults to 8.

    Raises:
        ValueError: If a setting is out of range; before training, if the model is no ``smmix_mm.MixingClassifier``, or
            does not normalise its images.
    """

    # After the loss was found finite.
    priority = 'LOW'

    def __init__(self, interval: int = 1000, num_images: int = 8) -> None:
        for name, value in (('interval', interval), ('num_images', num_images)):
            if value < 1:
                raise ValueError(f'{name} of MixedBatchHook has to be at least 1, but got {value}')
        self.interval = interval
        self.num_images = num_images
        self._watched: list[MixingMethod] = []
        self._seen: tuple[str, Tensor, Tensor] | None = None

    def before_train(self, runner: Runner) -> None:
        model = unwrap_model(runner.model)
        if not hasattr(model, 'mixing'):
            raise ValueError(
                f'MixedBatchHook needs a smmix_mm.MixingClassifier, whose batches are mixed, but the model is '
                f'{type(model).__name__}'
            )
        check_normalisation(model.data_preprocessor)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not (self.every_n_train_iters(runner, self.interval) and is_main_process()):
            return
        count = min(self.num_images, len(data_batch['data_samples']))
        self._watched = list(unwrap_model(runner.model).mixing.methods)
        for method in self._watched:
            # Only there are the mixed batch and its final labels together.
            method.losses = partial(self._watch, method.losses, name_method(method), count)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not self._watched:
            return
        for method in self._watched:
            del method.losses
        self._watched = []
        (name, images, labels), self._seen = self._seen, None
        step = runner.iter + 1
        pictures = to_pictures(unwrap_model(runner.model).data_preprocessor, images)
        classes = (getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}).get('classes')
        classes = classes or [f'class {index}' for index in range(labels.shape[1])]
        panels = [
            Panel(picture, caption=describe_shares(classes, label))
            for picture, label in zip(pictures, labels.tolist(), strict=True)
        ]
        rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
        # Backends may draw names for their files.
        with seeded_globals(np.random.default_rng(0)):
            picture = to_array(draw_panels(rows, f'{name}, step {step}'))
            runner.visualizer.add_image('mixed_batch', picture, step)

    def _watch(
        self,
        losses: Callable[..., dict[str, Tensor]],
        name: str,
        count: int,
        logits: Tensor,
        features: Features,
        mixed: MixedBatch,
        *others: Any,
    ) -> dict[str, Tensor]:
        """Copies what will be shown, and computes the losses of the method."""
        self._seen = name, mixed.images[:count].detach().clone(), mixed.targets[:count].detach().clone()
        return losses(logits, features, mixed, *others)
