"""Learning rate schedules."""

from mmengine.optim import CosineAnnealingLR

from smmix_mm.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class GroupedCosineAnnealingLR(CosineAnnealingLR):
    """mmengine's ``CosineAnnealingLR`` with an optional minimum per group of parameters.

    A group's minimum is its setting ``eta_min``, which ``paramwise_cfg`` can set:
    ``custom_keys={'.mix_block': dict(eta_min=1e-4)}``. Groups without it use the scheduler's ``eta_min``. OpenMixup's
    AutoMix trains its mix block this way.

    Args: as ``CosineAnnealingLR``, with ``eta_min`` and not ``eta_min_ratio``.
    """

    def _get_value(self) -> list[float]:
        common = self.eta_min
        floors = [group.get('eta_min', common) for group in self.optimizer.param_groups]
        try:
            by_floor = {}
            for self.eta_min in set(floors):
                by_floor[self.eta_min] = super()._get_value()
        finally:
            self.eta_min = common
        return [by_floor[floor][index] for index, floor in enumerate(floors)]
