"""Random choice of a mixing method for each step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mmengine.dist import get_rank
from torch import Tensor, nn

from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import StepClock, Streams, run_progress, step_streams

from .base import MixingMethod
from .stock import StockMixing, Unmixed

Augment = Mapping | MixingMethod | Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class RandomMixing(nn.Module):
    """Draws one of several methods for each step, the same one on every rank.

    Args:
        augments (dict | list[dict]): Methods: this project's, or mmpretrain's batch augmentations.
        probs (float | list[float], optional): Probability of each, as in mmpretrain. If their sum is less than one, the
            remaining steps are unmixed. Defaults to None: all methods are equally likely.
        same_on_all_ranks (bool): Whether method and region size of a step are the same on every rank. False draws
            them on each rank separately, as the authors' code does: with n ranks and probability p, all ranks then
            wait for the extra forward of SMMix in ``1 - (1 - p) ** n`` of the steps. Defaults to True.

    Raises:
        ValueError: If probabilities are negative, sum to more than one or differ in number from the methods, or if a
            method is unknown.
    """

    def __init__(
        self,
        augments: Augment | Sequence[Augment] = (),
        probs: float | Sequence[float] | None = None,
        same_on_all_ranks: bool = True,
    ) -> None:
        super().__init__()
        augments = list(augments) if isinstance(augments, Sequence) else [augments]
        methods = [_as_method(augment) for augment in augments]
        self.probs = _check_probs(probs, len(methods))
        self.methods = nn.ModuleList([*methods, Unmixed()])
        self.same_on_all_ranks = same_on_all_ranks
        self._clock = StepClock()

    def draw(self) -> tuple[MixingMethod, Streams]:
        """Draws the method of this step and returns it with the step's streams. Advances to the next step."""
        rank = get_rank()
        streams = step_streams(*self._clock.tick(), rank=rank, progress=run_progress())
        if not self.same_on_all_ranks:
            streams = replace(streams, shared=streams.local)
        return self.methods[streams.shared.choice(len(self.probs), p=self.probs)], streams


def _as_method(augment: Augment) -> MixingMethod:
    if isinstance(augment, Mapping):
        if 'type' not in augment:
            raise ValueError(f'every entry of augments needs a type, but got {dict(augment)}')
        if isinstance(augment['type'], str) and BATCH_AUGMENTS.get(augment['type']) is None:
            known = sorted({*BATCH_AUGMENTS.module_dict, *BATCH_AUGMENTS.parent.module_dict})
            raise ValueError(f'augments has no method {augment["type"]!r}; known are {", ".join(known)}')
        augment = BATCH_AUGMENTS.build(augment)
    return augment if isinstance(augment, MixingMethod) else StockMixing(augment)


def _check_probs(probs: float | Sequence[float] | None, num_methods: int) -> list[float]:
    """Probabilities of the methods and, last, of leaving the batch unmixed; they sum to one."""
    if not num_methods and not probs:
        return [1.0]
    if probs is None:
        return [1 / num_methods] * num_methods + [0.0]
    probs = [float(prob) for prob in (probs if isinstance(probs, Sequence) else [probs])]
    if len(probs) != num_methods:
        raise ValueError(f'probs has to have one entry per method, but got {len(probs)} for {num_methods} augments')
    if min(probs) < 0 or sum(probs) > 1 + 1e-6:
        raise ValueError(f'probs have to be non-negative and sum to at most 1, but got {probs}')
    total = max(sum(probs), 1.0)
    return [prob / total for prob in probs] + [max(0.0, 1 - sum(probs))]
