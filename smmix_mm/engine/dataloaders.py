"""What OpenMMLab's tools fill in for a config's dataloaders."""

from mmengine.config import Config


def complete_dataloaders(cfg: Config) -> None:
    """Fills in what a dataloader leaves out, as mmpretrain's own tools do, in place.

    Classifiers get pinned memory, persistent workers and ``default_collate``; without workers none can persist,
    whatever the config says, so that ``num_workers=0`` is enough to debug.

    Args:
        cfg (Config): With ``train_dataloader``, ``val_dataloader`` and ``test_dataloader``, each optional.
    """
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not loader:
            continue
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', True)
            loader.setdefault('collate_fn', dict(type='default_collate'))
        if not loader.get('num_workers'):
            loader.persistent_workers = False
