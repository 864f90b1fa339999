"""mmengine's train loops, which resume exactly, also in the middle of an epoch."""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from smmix_mm.checkpoint.guard import forget_handed_on
from smmix_mm.evaluation import try_evaluator
from smmix_mm.registry import LOOPS
from smmix_mm.streams import run_seed, seed_step
from smmix_mm.unwrapping import unwrap_model

from .checkpoint_hook import VALIDATED, CheckpointHook
from .interruption import Interruption, ValidationInterruptedError, shield_loader
from .ranks import RankChannel, read_timeout
from .samples import ResumableLoader
from .start import prepare_start
from .work_dir import hold_work_dir

# Keys of the message hub, which is stored in checkpoints.
BATCHES = 'batches'
EPOCH_START = 'epoch_start'
SAMPLER_SEED = 'sampler_seed'


class ResumableLoop:
    """A mixin for train loops: it seeds each step, starts from a complete checkpoint, and ends on SIGTERM.

    It has to precede mmengine's loop class in the order of bases.
    """

    endless = False

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, interrupt_interval: int = 10, **kwargs: Any):
        # Both runners build the loop first, but load the checkpoint before or after `before_run`.
        prepare_start(runner)
        if isinstance(dataloader, dict):
            diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed)
        _check_batches(dataloader)
        _check_classes(runner, dataloader)
        _scale_by_updates(runner)
        super().__init__(runner, ResumableLoader(dataloader, runner.seed, self.endless), **kwargs)
        self.channel = RankChannel(read_timeout(runner.cfg))
        self.interruption = Interruption(interrupt_interval, self.channel)

    def run(self) -> nn.Module:
        """Trains to the end, or until SIGTERM."""
        forget_handed_on()
        self._take_seeds()
        self._warn_of_other_batches()
        if self.runner.val_loop is not None:
            shield_loader(self.runner.val_loop.dataloader)
            try_evaluator(self.runner)
        if self._checkpoint_hook is not None:
            self._checkpoint_hook.attend(self.interruption, self.channel)
        with hold_work_dir(self.runner.work_dir), self.channel, self.interruption:
            self.runner.call_hook('before_train')
            self._train()
            self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, *args: Any) -> None:
        """Runs one micro-step, then checks for SIGTERM.

        Args:
            *args: As in mmengine's loop.
        """
        seed_step(self._seed, self._iter, get_rank())
        super().run_iter(*args)
        if self.interruption.is_due(self._iter):
            self._save_and_end()

    @property
    def _checkpoint_hook(self) -> CheckpointHook | None:
        return next((hook for hook in self.runner.hooks if isinstance(hook, CheckpointHook)), None)

    def _take_seeds(self) -> None:
        """Takes the seeds of the resumed run, which are known only now if they were drawn."""
        self._seed = self.dataloader.batch_sampler.seed = run_seed(self.runner.seed)
        sampler, hub = self.dataloader.batch_sampler.sampler, self.runner.message_hub
        if hasattr(sampler, 'seed'):
            # InfiniteSampler also reads it only when its first index is drawn.
            sampler.seed = hub.get_info(SAMPLER_SEED, sampler.seed)
            hub.update_info(SAMPLER_SEED, sampler.seed)

    def _warn_of_other_batches(self) -> None:
        hub, loader = self.runner.message_hub, self.dataloader
        batches = dict(ranks=get_world_size(), batch_size=loader.batch_sampler.batch_size, images=len(loader.dataset))
        former = hub.get_info(BATCHES, batches)
        if former != batches:
            print_log(
                f'The batches differ from those of the resumed run: it had {former}, this run has {batches}.',
                'current',
                logging.WARNING,
            )
        hub.update_info(BATCHES, batches)

    def _validate_if_due(self, is_due: bool) -> None:
        """Validates if it is due, unless the resumed checkpoint was written after this validation."""
        hub = self.runner.message_hub
        if self.runner.val_loop is None or not is_due or hub.get_info(VALIDATED) == self._iter:
            return
        seed_step(self._seed, self._iter, get_rank())
        try:
            self.runner.val_loop.run()
        except ValidationInterruptedError:
            for hook in self.runner.hooks:
                # mmpretrain's EMAHook may validate the trained weights only.
                if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
                    # The model holds the averaged weights during a validation.
                    hook._swap_ema_parameters()
            self._save_and_end()
        else:
            hub.update_info(VALIDATED, self._iter)

    def _save_and_end(self) -> None:
        hook = self._checkpoint_hook
        checkpoint = hook.save_interrupted(self.runner) if hook else 'none is written without smmix_mm.CheckpointHook'
        text = f'SIGTERM: the run ends after iteration {self._iter}. To continue: --resume (checkpoint: {checkpoint}).'
        print_log(text, 'current', logging.WARNING)
        self.interruption.served = True
        self.stop_training = True


def _check_batches(loader: DataLoader) -> None:
    """Refuses a loader without a batch, with which a run would end at once as if it had trained."""
    # Iterable datasets have no length; ResumableLoader refuses them.
    if isinstance(loader.dataset, IterableDataset) or isinstance(loader.sampler, InfiniteSampler) or len(loader):
        return
    raise ValueError(
        f'train_dataloader gives no batch: its dataset has {len(loader.dataset)} images for {get_world_size()} '
        f'processes with batch_size={loader.batch_size} each and drop_last={loader.drop_last}; lower batch_size, set '
        f'drop_last=False, or give more images'
    )


def _check_classes(runner: Runner, loader: DataLoader) -> None:
    """Compares the classes of the dataset, whatever its type, with those of a classifier's head."""
    model = runner.model
    # FlexibleRunner builds it later. Detectors and segmentors have heads of other names.
    head = getattr(unwrap_model(model), 'head', None) if isinstance(model, nn.Module) else None
    needed = getattr(head, 'num_classes', None)
    classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
    if isinstance(needed, int) and isinstance(classes, list | tuple) and len(classes) != needed:
        raise ValueError(
            f'num_classes of the head is {needed}, but {type(loader.dataset).__name__} of train_dataloader has '
            f'{len(classes)} classes; set num_classes of head, head.loss and data_preprocessor to {len(classes)}, or '
            f'metainfo.classes of the dataset'
        )


def _scale_by_updates(runner: Runner) -> None:
    """Counts all ``accumulative_counts`` batches of an update when the learning rate is scaled; mmengine does not."""
    wrapper = getattr(runner, 'optim_wrapper', None) or {}
    counts = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, Mapping) else 1
    # FlexibleRunner's strategy has the same dict or a separate one.
    holders = (
        getattr(runner, 'auto_scale_lr', None),
        getattr(getattr(runner, 'strategy', None), '_auto_scale_lr', None),
    )
    for settings in {id(settings): settings for settings in holders if settings and settings.get('enable')}.values():
        settings['base_batch_size'] = settings['base_batch_size'] / counts


@LOOPS.register_module()
class EpochBasedTrainLoop(ResumableLoop, MMEngineEpochBasedTrainLoop):
    """mmengine's loop of the same name, which can resume in the middle of an epoch.

    All random draws, such as batches and dropout, depend only on the run's seed, the epoch or step, and the sample or
    rank. A resumed run therefore equals an uninterrupted one, and the number of workers does not matter.

    Args:
        runner (Runner): Runner of the training.
        dataloader (DataLoader | dict): A loader with a map-style dataset.
        max_epochs (int): Number of epochs.
        interrupt_interval (int): With several ranks, the number of iterations between checks for SIGTERM.
            Defaults to 10.
        **kwargs: ``val_begin``, ``val_interval`` and ``dynamic_intervals`` as in mmengine's loop.

    Raises:
        TypeError: If the dataset is iterable and has no indices.
        ValueError: If the checkpoint to resume from is corrupt.
    """

    def _train(self) -> None:
        # A validation that was due when the checkpoint was written comes first; a finished epoch is only closed.
        self._decide_current_val_interval()
        position = self._position()
        self._validate_if_due(self._epoch > 0 and position == 0 and self._is_val_due())
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch(position)
            position = 0
            if self.interruption.served:
                break
            self._decide_current_val_interval()
            self._validate_if_due(self._is_val_due())

    def _is_val_due(self) -> bool:
        is_turn = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self._epoch >= self.val_begin and is_turn

    def run_epoch(self, position: int = 0) -> None:
        """Runs the rest of an epoch.

        Args:
            position (int): Number of its batches that are done. Defaults to 0.
        """
        runner = self.runner
        start = dict(epoch=self._epoch, iter=self._iter - position, batches=len(self.dataloader))
        runner.message_hub.update_info(EPOCH_START, start)
        runner.call_hook('before_train_epoch')
        runner.model.train()
        # Not all samplers know the epoch.
        self.dataloader.batch_sampler.epoch = self._epoch
        # No workers are started for an epoch without remaining batches.
        batches = self.dataloader.batches_from(position) if position < len(self.dataloader) else ()
        for idx, data_batch in batches:
            self.run_iter(idx, data_batch)
            if self.interruption.served:
                # The epoch is not over: schedulers must not step, and no checkpoint is due.
                return
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _position(self) -> int:
        """Number of batches of this epoch that are done."""
        batches = len(self.dataloader)
        # A checkpoint of mmengine's own loop does not record where the epoch began.
        usual = dict(epoch=self._epoch, iter=self._epoch * batches, batches=batches)
        start = self.runner.message_hub.get_info(EPOCH_START, usual)
        if start['epoch'] != self._epoch:
            return 0
        position = self._iter - start['iter']
        if start['batches'] != batches or not 0 <= position <= batches:
            print_log(
                f'Epoch {self._epoch + 1} starts again from its first batch: it has {batches} batches now, but '
                f'{position} of {start["batches"]} were done when the checkpoint was written. The number of ranks, the '
                'batch size or the dataset may have changed.',
                'current',
                logging.WARNING,
            )
            return 0
        return position


@LOOPS.register_module()
class IterBasedTrainLoop(ResumableLoop, MMEngineIterBasedTrainLoop):
    """mmengine's loop of the same name, which resumes with the batches that were not seen yet.

    It resumes as exactly as :class:`EpochBasedTrainLoop`. A finite sampler starts again with the next epoch.

    Args:
        runner (Runner): Runner of the training.
        dataloader (DataLoader | dict): A loader with a map-style dataset.
        max_iters (int): Number of iterations.
        interrupt_interval (int): As in :class:`EpochBasedTrainLoop`. Defaults to 10.
        **kwargs: ``val_begin``, ``val_interval`` and ``dynamic_intervals`` as in mmengine's loop.

    Raises:
        TypeError: If the dataset is iterable and has no indices.
        ValueError: If the checkpoint to resume from is corrupt.
    """

    endless = True

    def _train(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self._decide_current_val_interval()
        self._validate_if_due(self._iter > 0 and self._is_val_due())
        batches = self.dataloader.batches_from(self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            _, data_batch = next(batches)
            self.run_iter(data_batch)
            if self.interruption.served:
                return
            self._decide_current_val_interval()
            self._validate_if_due(self._is_val_due())
        if not self.interruption.served:
            self.runner.call_hook('after_train_epoch')

    def _is_val_due(self) -> bool:
        is_turn = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self._iter >= self.val_begin and is_turn
