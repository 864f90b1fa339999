"""Checks that weights fit a model, with errors that list the differences."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from smmix_mm.unwrapping import unwrap_model

from .weights import keep_metadata


def check_fit(model: nn.Module, weights: Mapping[str, Tensor], source: str, may_differ: Iterable[str] = ()) -> None:
    """Refuses weights of another architecture, of which mmengine would load the part that fits and log the rest.

    They are loaded into a copy of the model, so that differences that its load hooks resolve are accepted, such as
    position embeddings of another input size.

    Args:
        model (nn.Module): The model, in a parallel wrapper or not.
        weights (Mapping[str, Tensor]): By name.
        source (str): Named in the error, such as the file.
        may_differ (Iterable[str]): Parts, by the first component of names, whose tensors may be missing, unexpected,
            or of another shape. Defaults to none.

    Raises:
        ValueError: If names or shapes differ; it lists them.
    """
    load_except(copy.deepcopy(unwrap_model(model)), weights, source, may_differ)


def load_except(module: nn.Module, weights: Mapping[str, Tensor], source: str, kept: Iterable[str] = ()) -> None:
    """Loads all weights or fails, except some parts of the module, which keep their own.

    Args:
        module (nn.Module): Loaded in place.
        weights (Mapping[str, Tensor]): By name. They may lack the parts that are kept, or hold others.
        source (str): Named in the error, such as the file.
        kept (Iterable[str]): Parts, by the first component of names. Defaults to none.

    Raises:
        ValueError: If other names or shapes differ; it lists them.
    """
    parts = set(kept)
    own = module.state_dict().items()
    loaded = OrderedDict((name, value) for name, value in own if name.partition('.')[0] in parts)
    loaded.update((name, value) for name, value in weights.items() if name.partition('.')[0] not in parts)
    keep_metadata(loaded, weights)
    load_strictly(module, loaded, source)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads all weights or fails; errors name the source and at most 20 of the names and shapes that differ.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, after the load hooks.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        lines = [line if len(line) < 800 else f'{line[:800]} ...' for line in lines[1:] or lines]
        raise ValueError('\n'.join([f'{source} does not fit {type(module).__name__}:', *lines[:20]])) from None
