"""mmengine's checkpoint hook, safe against a kill at any moment."""

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

# Keys of the message hub, which is stored in checkpoints.
# Not 'validated...': mmengine's validation log shows every key that begins with val.
VALIDATED = 'last_validated_iter'
OUTDATED = 'outdated_ckpts'
GRADIENTS = 'accumulated_gradients'

INTERRUPTED = 'interrupted_iter_'


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's ``CheckpointHook`` with atomic writes: a complete checkpoint exists at any time.

    A checkpoint is written to a temporary file, synced to the disk and renamed. Outdated checkpoints are removed only
    afterwards; mmengine's hook removes them first. Each rank's gradients that are accumulated for a later update are
    stored too. On SIGTERM, the train loops of ``smmix_mm`` save ``interrupted_iter_<n>.pth`` through this hook; the
    next ordinary checkpoint replaces it.

    If ``out_dir`` is not on a local disk, checkpoints are written as in mmengine, and ``interrupted_iter_<n>.pth`` is
    not removed.

    Args:
        **kwargs: As in mmengine's ``CheckpointHook``.

    Raises:
        OSError: If the disk is full or not writable. The message says what to do; existing files stay untouched.
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
        """Makes SIGTERM interrupt validations, and gathers gradients through the loop's own channel.

        The train loops of this package call it when they begin.

        Args:
            interruption (Interruption): The loop's.
            channel (RankChannel): The loop's.
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
            # A killed run may not have removed them.
            self._remove_outdated(runner.message_hub.get_info(OUTDATED, []))

    def before_val_epoch(self, runner: Runner) -> None:
        if self._interruption is not None:
            # Some ranks may have one batch more than others, or none, but all have to communicate equally often.
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
        # mmpretrain's EMAHook validates a second time, with the trained weights in the model.
        if self._val_passes == 1 and batch_idx < self._val_batches and self._interruption.is_due(batch_idx + 1):
            raise ValidationInterruptedError

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        # Before the checkpoint is written again with the best score.
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        # An interrupted run will continue, so its model is not published.
        if self._interruption is None or not self._interruption.served:
            super().after_train(runner)

    def save_interrupted(self, runner: Runner) -> str:
        """Saves the state of the run between two iterations, unless the last checkpoint already holds it.

        Args:
            runner (Runner): Its epoch and iteration are the next ones to run.

        Returns:
            str: The checkpoint to resume from.
        """
        if self._saved_iter != runner.iter:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._write(runner, f'{INTERRUPTED}{runner.iter}.pth', meta)
        return self.last_ckpt

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # FlexibleRunner computes its own counters, which are one too high after a validation.
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
        """Writes a checkpoint, then ``last_checkpoint``, and then removes the checkpoints that became outdated."""
        former = Path(runner.message_hub.get_info('last_ckpt', '')).name
        if former.startswith(INTERRUPTED) and former != name:
            self._outdated.append(former)
        self._outdated += self._former_best()
        runner.message_hub.update_info(OUTDATED, list(self._outdated))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._gradients = gather_gradients(runner, self._channel)
        writer = _WholeWriter(runner, self) if self._is_local else runner
        writer.save_checkpoint(
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
        """Delays removing the former best checkpoint, which mmengine does before it writes the new one."""
        backend = self.file_backend
        self.file_backend = _RemovingLater(backend)
        try:
            yield
            self._remove_outdated(self._former_best())
        finally:
            self.file_backend = backend

    def _former_best(self) -> list[str]:
        """Names of former best checkpoints that mmengine would have removed."""
        kept = {Path(path).name for path in self._best_paths()}
        removed = {Path(path).name for path in getattr(self.file_backend, 'removed', ())}
        return sorted(removed - kept)

    def _take_over(self, hub: MessageHub) -> None:
        """Restores the names of a resumed run's last and best checkpoints; mmengine forgets the last one.

        The names refer to files in this run's folder, even if it was moved.
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
        """Removes checkpoints from this run's folder only: a copied run must not touch those of the original."""
        if is_main_process() and self._is_local:
            for name in names:
                remove(Path(self.out_dir, name))

    def _restore_gradients(self, runner: Runner) -> None:
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            return
        if len(gradients) != get_world_size():
            print_log(
                f'The checkpoint holds accumulated gradients of {len(gradients)} ranks, but this run has '
                f'{get_world_size()}: they are discarded, and the next update uses fewer images.',
                logger='current',
                level=logging.WARNING,
            )
            return
        for name, parameter in unwrap_model(runner.model).named_parameters():
            if name in gradients[get_rank()]:
                parameter.grad = gradients[get_rank()][name].to(parameter)
        runner.logger.info('The gradients accumulated before the checkpoint are restored.')


class _WholeWriter:
    """A proxy of a runner that writes its checkpoints atomically."""

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
    """A proxy of a file backend that records removals instead of executing them."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removed.append(path)

    rmtree = remove


def gather_gradients(runner: Runner, channel: RankChannel) -> list[dict[str, Tensor]] | None:
    """Gathers the accumulated gradients of all ranks on the first rank; None if there are none."""
    is_accumulated = any(getattr(wrapper, '_accumulative_counts', 1) > 1 for wrapper in list_optim_wrappers(runner))
    # FSDP does not expose the gradients that it accumulates.
    if not is_accumulated or isinstance(runner.model, FullyShardedDataParallel):
        return None
    gradients = {
        name: parameter.grad.cpu()
        for name, parameter in unwrap_model(runner.model).named_parameters()
        if parameter.grad is not None
    }
    gathered = channel.gather(gradients)
    return gathered if gathered is not None and any(gathered) else None
