"""Dataloader defaults that OpenMMLab's tools add to a config."""

from mmengine.config import Config


def complete_dataloaders(cfg: Config, pin_memory: bool = True, persistent_workers: bool = True) -> None:
    """Adds missing dataloader settings in place, as mmpretrain's own tools do.

    Classifiers get pinned memory, persistent workers and ``default_collate``. Without workers ``persistent_workers``
    is set to False, so ``num_workers=0`` is enough to debug.

    Args:
        cfg (Config): May have ``train_dataloader``, ``val_dataloader`` and ``test_dataloader``.
        pin_memory (bool): False turns it off in all dataloaders, whatever the config says. Defaults to True.
        persistent_workers (bool): False turns it off likewise. Defaults to True.
    """
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not loader:
            continue
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', True)
            loader.setdefault('collate_fn', dict(type='default_collate'))
        if not pin_memory:
            loader.pin_memory = False
        if not persistent_workers or not loader.get('num_workers'):
            loader.persistent_workers = False
