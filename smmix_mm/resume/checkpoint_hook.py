"""mmengine's checkpoint hook, made safe against being killed at any moment."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank, get_world_size, is_main_process, master_only
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import MessageHub, print_log
from mmengine.runner import Runner
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel

from smmix_mm.files import remove, remove_unfinished, write_whole
from smmix_mm.registry import HOOKS
from smmix_mm.unwrapping import list_optim_wrappers, unwrap_model

from .interruption import Interruption, ValidationInterruptedError
from .ranks import RankChannel
from .start import LAST_CHECKPOINT
from .work_dir import explained

# In the message hub, and so in checkpoints.
# Not 'validated...': mmengine's log of a validation shows whatever begins with val.
VALIDATED = 'last_validated_iter'
OUTDATED = 'outdated_ckpts'
GRADIENTS = 'accumulated_gradients'

INTERRUPTED = 'interrupted_iter_'


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's ``CheckpointHook``, which always leaves a whole checkpoint behind.

    A checkpoint is written beside its place, synced to the disk and put in place in one step, and only then those that
    it makes outdated are removed; mmengine's hook removes first. Gradients that are accumulated for a later update are
    stored too, those of each rank. On SIGTERM, ``smmix_mm``'s train loops have it save ``interrupted_iter_<n>.pth``,
    which the next ordinary checkpoint replaces.

    Where ``out_dir`` is not on a local disk, checkpoints are written as mmengine does.

    Args:
        **kwargs: As in mmengine's ``CheckpointHook``.

    Raises:
        OSError: If the disk is full or must not be written to, with what to do; what was there is untouched.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._saved_iter: int | None = None
        self._outdated: list[str] = []
        self._counters: dict[str, int] = {}
        self._gradients: list[dict[str, Tensor]] | None = None
        self._interruption: Interruption | None = None
        self._channel = RankChannel()

    def attend(self, interruption: Interruption, channel: RankChannel) -> None:
        """Has validations of the run broken off on SIGTERM, and gradients gathered beside the exchange of the model's.

        Our train loops call it when they begin.

        Args:
            interruption (Interruption): Of the loop.
            channel (RankChannel): Of the loop.
        """
        self._interruption, self._channel = interruption, channel

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._restore_gradients(runner)
        self._is_local = isinstance(self.file_backend, LocalBackend)
        if not self._is_local:
            return
        self._take_over(runner.message_hub)
        if is_main_process():
            remove_unfinished(self.out_dir)
            # A run that was killed did not come to removing them.
            self._remove_outdated(runner.message_hub.get_info(OUTDATED, []))

    def before_val_epoch(self, runner: Runner) -> None:
        if self._interruption is not None:
            # Ranks may have one batch more than others, or none; all have to ask each other equally often.
            self._val_passes = 0
            self._val_batches = -self._channel.highest(-len(runner.val_dataloader))

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        if self._interruption is None:
            return
        self._val_passes += batch_idx == 0
        # mmpretrain's EMAHook validates a second time, with the trained weights back in the model.
        if self._val_passes == 1 and batch_idx < self._val_batches and self._interruption.is_due(batch_idx + 1):
            raise ValidationInterruptedError

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        # Before the checkpoint is written again with the best score in it.
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        # A model that is to be trained on is not published.
        if self._interruption is None or not self._interruption.served:
            super().after_train(runner)

    def save_interrupted(self, runner: Runner) -> str:
        """Saves where the run stands between two iterations, if the last checkpoint does not.

        Args:
            runner (Runner): Its epoch and iteration are those that come next.

        Returns:
            str: The checkpoint to go on from.
        """
        if self._saved_iter != runner.iter:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._write(runner, f'{INTERRUPTED}{runner.iter}.pth', meta)
        return self.last_ckpt

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # FlexibleRunner counts anew, one too many after a validation.
        checkpoint['meta'].update(self._counters)
        if self._gradients is not None and 'optimizer' in checkpoint:
            checkpoint[GRADIENTS] = self._gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._gradients = checkpoint.get(GRADIENTS) if runner._resume else None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self._is_local:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        if isinstance(runner, _WholeWriter):
            runner = runner.runner
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self._outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._write(runner, self.filename_tmpl.format(step), meta)

    def _write(self, runner: Runner, name: str, meta: dict) -> None:
        """Writes a checkpoint to go on from, then which one it is, and then removes what it makes outdated."""
        former = Path(runner.message_hub.get_info('last_ckpt', '')).name
        if former.startswith(INTERRUPTED) and former != name:
            self._outdated.append(former)
        self._outdated += self._former_best()
        runner.message_hub.update_info(OUTDATED, list(self._outdated))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._gradients = gather_gradients(runner, self._channel)
        _WholeWriter(runner, self).save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._gradients = None
        self._saved_iter = meta['iter']
        self._note_last(runner)
        self._remove_outdated(self._outdated)
        self._outdated = []

    @master_only
    def _note_last(self, runner: Runner) -> None:
        pointer = Path(runner.work_dir, LAST_CHECKPOINT)
        with explained(pointer):
            write_whole(pointer, lambda unfinished: unfinished.write_text(self.last_ckpt))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self._is_local:
            super()._save_best_checkpoint(runner, metrics)
            return
        with self._removing_later():
            super()._save_best_checkpoint(_WholeWriter(runner, self), metrics)

    @contextmanager
    def _removing_later(self) -> Iterator[None]:
        """mmengine removes the former best checkpoint before the new one is written."""
        backend = self.file_backend
        self.file_backend = _RemovingLater(backend)
        try:
            yield
            self._remove_outdated(self._former_best())
        finally:
            self.file_backend = backend

    def _former_best(self) -> list[str]:
        """What mmengine would have removed, now that there is a better one."""
        kept = {Path(path).name for path in self._best_paths()}
        removed = {Path(path).name for path in getattr(self.file_backend, 'removed', ())}
        return sorted(removed - kept)

    def _take_over(self, hub: MessageHub) -> None:
        """Takes over what a resumed run had written; mmengine forgets the last one, and writes less then.

        The names stand for files of this run's folder, though it may have been moved.
        """
        for key in ('last_ckpt', *(name for name in hub.runtime_info if name.startswith('best_ckpt'))):
            if hub.get_info(key):
                hub.update_info(key, self.file_backend.join_path(self.out_dir, Path(hub.get_info(key)).name))
        self.last_ckpt = hub.get_info('last_ckpt')
        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = hub.get_info('best_ckpt')
        for indicator in getattr(self, 'best_ckpt_path_dict', {}):
            self.best_ckpt_path_dict[indicator] = hub.get_info(f'best_ckpt_{indicator}')

    def _best_paths(self) -> list[str]:
        paths = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        return [path for path in paths if path]

    def _remove_outdated(self, names: list[str]) -> None:
        """Removes checkpoints of this run's own folder; a copied run must not touch those of the run it came from."""
        if is_main_process():
            for name in names:
                remove(Path(self.out_dir, name))

    def _restore_gradients(self, runner: Runner) -> None:
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            return
        if len(gradients) != get_world_size():
            print_log(
                f'The checkpoint holds accumulated gradients of {len(gradients)} ranks, but there are '
                f'{get_world_size()}: they are left out, and the next update is made of less images.',
                logger='current',
                level=logging.WARNING,
            )
            return
        for name, parameter in unwrap_model(runner.model).named_parameters():
            if name in gradients[get_rank()]:
                parameter.grad = gradients[get_rank()][name].to(parameter)
        runner.logger.info('The gradients that were accumulated before the checkpoint are restored.')


class _WholeWriter:
    """Stands for a runner, and writes its checkpoints whole."""

    def __init__(self, runner: Runner, hook: CheckpointHook) -> None:
        self.runner = runner
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, meta: dict, **kwargs: Any) -> None:
        def write(unfinished: Path) -> None:
            self.runner.save_checkpoint(out_dir, unfinished.name, *args, meta=meta, **kwargs)

        self._hook._counters = {key: meta[key] for key in ('epoch', 'iter')}
        path = Path(out_dir, filename)
        with explained(path):
            write_whole(path, write, together=True)
        self._hook._counters = {}


class _RemovingLater:
    """Stands for a file backend, and only notes what is to be removed."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removed.append(path)

    rmtree = remove


def gather_gradients(runner: Runner, channel: RankChannel) -> list[dict[str, Tensor]] | None:
    """The gradients that wait for an update, by rank, on the first rank; None if none does."""
    is_accumulated = any(getattr(wrapper, '_accumulative_counts', 1) > 1 for wrapper in list_optim_wrappers(runner))
    # FSDP keeps what it accumulates to itself.
    if not is_accumulated or isinstance(runner.model, FullyShardedDataParallel):
        return None
    gradients = {
        name: parameter.grad.cpu()
        for name, parameter in unwrap_model(runner.model).named_parameters()
        if parameter.grad is not None
    }
    gathered = channel.gather(gradients)
    return gathered if gathered is not None and any(gathered) else None
