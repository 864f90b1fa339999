"""What an adapter is, and how the one for a backbone is found."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features


class Tap:
    """Keeps what one module of the backbone puts out, while it is open.

    The hook stays on the module for good and does nothing while the tap is closed: hooks that come and go are not seen
    by a compiled backbone. It survives ``copy.deepcopy`` (EMA), the copy tapping the copied module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.value: Any = None
        self.is_open = False
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.is_open:
            self.value = output


@contextmanager
def opened(*taps: Tap) -> Iterator[None]:
    """Opens taps for one run of the backbone; afterwards they hold nothing, so that no graph outlives its step."""
    for tap in taps:
        tap.is_open = True
    try:
        yield
    finally:
        for tap in taps:
            tap.is_open, tap.value = False, None


class Adapter(ABC):
    """The single place that knows one family of backbones.

    It reads a stock, unmodified backbone: one ordinary run gives the stock output, the final tokens and, if asked for,
    the attention of the last block, computed beside it from that block's own queries and keys. All blocks, the last
    one included, keep using fused attention.

    Args:
        backbone (nn.Module): An instance of :attr:`family`.

    Attributes:
        family: The backbone class that this adapter reads, its subclasses included.
        backbone: The backbone.
        embed_dims (int): Channels of the tokens.
        stride (tuple[int, int]): Height and width in pixels of what a token stands for.
    """

    family: ClassVar[type[nn.Module]]
    embed_dims: int
    stride: tuple[int, int]

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone

    @abstractmethod
    def read(self, images: Tensor, attention: bool = False) -> Features:
        """Runs the backbone once.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed.
            attention (bool): Whether to read the attention of the last block too. Defaults to False.

        Returns:
            Features: See there.
        """

    @abstractmethod
    def grid(self, images: Tensor) -> tuple[int, int]:
        """Token grid ``(h, w)`` of the last block for images of this size, without running the backbone."""


def build_adapter(backbone: nn.Module) -> Adapter:
    """The adapter of a backbone's family, the most derived one where several fit.

    Args:
        backbone (nn.Module): Any backbone.

    Returns:
        Adapter: Bound to the backbone.

    Raises:
        ValueError: If no adapter is registered for the backbone's class, or the adapter refuses its settings.
    """
    ADAPTERS.import_from_location()
    known = {adapter.family: adapter for adapter in ADAPTERS.module_dict.values()}
    for ancestor in type(backbone).__mro__:
        if ancestor in known:
            return known[ancestor](backbone)
    families = ', '.join(sorted(family.__name__ for family in known))
    raise ValueError(
        f'backbone {type(backbone).__name__} has no adapter, which the mixing methods need to read its tokens and '
        f'attention; there are adapters for {families}. Another is one class registered in smmix_mm.registry.ADAPTERS'
    )
