"""What an adapter is, and how the one for a backbone is found."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features


class Tap:
    """Keeps what one module of the backbone puts out, while it is open.

    The hook stays on the module for good and does nothing while the tap is closed: hooks that come and go are not seen
    by a compiled backbone. It survives ``copy.deepcopy`` (EMA), the copy tapping the copied module.

    Args:
        module (nn.Module): Of the backbone.
    """

    def __init__(self, module: nn.Module) -> None:
        self._of = type(module).__name__
        self._output: Any = None
        self.is_open = False
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.is_open:
            self._output = output

    @property
    def value(self) -> Any:
        """The module's last output since the tap was opened; None while it is closed.

        Raises:
            RuntimeError: If the tap is open and the module was not seen to run.
        """
        if self.is_open and self._output is None:
            raise RuntimeError(
                f'the hook on {self._of} saw no output: either the backbone did not run it, or torch.compile, which '
                f'leaves out hooks where a graph breaks; compile the backbone by the hook smmix_mm.CompileBackbone, '
                f'with fullgraph=True'
            )
        return self._output

    def close(self) -> None:
        """Lets go of what it holds."""
        self.is_open, self._output = False, None


@contextmanager
def opened(*taps: Tap) -> Iterator[None]:
    """Opens taps for one run of the backbone; afterwards they hold nothing, so that no graph outlives its step."""
    for tap in taps:
        tap.is_open = True
    try:
        yield
    finally:
        for tap in taps:
            tap.close()


class Adapter(ABC):
    """The single place that knows one family of backbones.

    It reads a stock, unmodified backbone: one ordinary run gives the stock output, the final tokens and, if asked for,
    the attention of the last block. Where that block's attention is fused, it stays so, and the weights are computed
    beside it from the block's own queries and keys; where it has an explicit softmax, that is read.

    Args:
        backbone (nn.Module): An instance of :attr:`family`.

    Attributes:
        family: The backbone class that this adapter reads, its subclasses included.
        backbone: The backbone.
        embed_dims (int): Channels of the tokens.
        stride (tuple[int, int]): Height and width in pixels of what a token stands for.
        num_layers (int): Layers that :meth:`read_layer` can read.
        middle_layer (int): The one in the middle of the backbone.
    """

    family: ClassVar[type[nn.Module]]
    embed_dims: int
    stride: tuple[int, int]
    num_layers: int = 0
    middle_layer: int = 0

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        self._layer_taps: dict[int, Tap] = {}

    @abstractmethod
    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        """Runs the backbone once.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed.
            attention (bool): Whether to read the image attention score of the last block too. Defaults to False.
            class_attention (bool): Whether to read what the class token attends to. Defaults to False.

        Returns:
            Features: See there.
        """

    @abstractmethod
    def grid(self, images: Tensor) -> tuple[int, int]:
        """Token grid ``(h, w)`` of the last block for images of this size, without running the backbone."""

    def check_size(self, size: tuple[int, int]) -> None:  # noqa: B027
        """Refuses images that the backbone cannot run on.

        Args:
            size (tuple[int, int]): Height and width in pixels.

        Raises:
            ValueError: With the name of the backbone, the size and what it needs.
        """

    def read_layer(self, images: Tensor, layer: int) -> Tensor:
        """Runs the backbone and reads the map that one of its layers puts out.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed.
            layer (int): From 1 to :attr:`num_layers`; see the family for what is counted.

        Returns:
            Tensor: ``(B, C', h', w')``, without extra tokens.

        Raises:
            ValueError: If the layer is out of range, or the adapter reads the last layer alone.
        """
        if not 1 <= layer <= self.num_layers:
            has = f'layers 1 to {self.num_layers}' if self.num_layers else 'no layers that can be read on the way'
            raise ValueError(f'{type(self.backbone).__name__} has {has}, but layer {layer} was asked for')
        if layer not in self._layer_taps:
            self._layer_taps[layer] = Tap(self._layer(layer))
        tap = self._layer_taps[layer]
        with opened(tap):
            self.backbone(images)
            return self._layer_map(tap.value, images, layer)

    def layer_dims(self, layer: int) -> int:
        """Channels of the map that :meth:`read_layer` reads, without running the backbone.

        Args:
            layer (int): From 1 to :attr:`num_layers`.
        """
        raise NotImplementedError

    def _layer(self, layer: int) -> nn.Module:
        """The module whose output a layer's map is made of."""
        raise NotImplementedError

    def _layer_map(self, output: Any, images: Tensor, layer: int) -> Tensor:
        """``(B, C', h', w')`` of the output of a layer's module."""
        raise NotImplementedError


@torch.no_grad()
def read_scores(
    query: Tensor,
    key: Tensor,
    num_extra_tokens: int,
    grid: tuple[int, int],
    attention: bool = False,
    class_attention: bool = False,
    by_class_token: bool = True,
) -> dict[str, Tensor]:
    """The attentions of :class:`Features` from the queries and keys of a block over all tokens of an image.

    Args:
        query (Tensor): ``(B, heads, E + N, head_dim)``, the ``E`` extra tokens first.
        key (Tensor): Same shape.
        num_extra_tokens (int): ``E``; 0 for a block without class token.
        grid (tuple[int, int]): ``(h, w)`` with ``h * w = N``.
        attention (bool): Whether the image attention score is wanted. Defaults to False.
        class_attention (bool): Whether the class token's attention is wanted. Defaults to False.
        by_class_token (bool): Whether images are classified by their class token. Where they are not, or there is none,
            the image attention score takes the place of its attention. Defaults to True.

    Returns:
        dict[str, Tensor]: ``(B, h, w)`` each, under their names in :class:`Features`.
    """
    scores = {}
    by_class_token = by_class_token and num_extra_tokens > 0
    if attention or (class_attention and not by_class_token):
        scores['attention'] = functional.image_attention(query, key, num_extra_tokens).unflatten(1, grid)
    if class_attention and by_class_token:
        scores['class_attention'] = functional.class_attention(query, key, num_extra_tokens).unflatten(1, grid)
    elif class_attention:
        scores['class_attention'] = scores['attention']
    return scores


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
