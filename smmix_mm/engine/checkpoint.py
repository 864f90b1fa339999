"""Reading checkpoints without executing what is pickled in them, telling whether they fit, and writing them."""

import copy
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smmix_mm.checkpoint import read_file
from smmix_mm.checkpoint.unpickling import is_foreign
from smmix_mm.engine.unwrapping import unwrap_model

# What of a classifier only training uses: SMMix's region classifier, and the parameters of methods that have some.
TRAINING_ONLY = ('region_head.', 'mixing.')


def read_checkpoint(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU without executing anything that is pickled in it.

    Args:
        path (str | Path): A file of ``torch.save``, in its present or its former format.
        mapped (bool): Whether to read tensors only when they are looked at; not for the former format. Defaults to
            False.

    Returns:
        dict[str, Any]: Its content. Objects that are no plain data, such as the ``argparse.Namespace`` in authors'
        checkpoints, are :class:`smmix_mm.checkpoint.Foreign`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    content = read_file(path, mmap=mapped)
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} has to hold a dict, but holds a {type(content).__name__}')
    return content


def read_weights(path: str | Path) -> 'OrderedDict[str, Tensor]':
    """The weights in a checkpoint, bare or under ``state_dict`` or ``model``.

    Args:
        path (str | Path): As in :func:`read_checkpoint`.

    Returns:
        OrderedDict[str, Tensor]: By name, without a ``module.`` that a parallel wrapper left behind.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_checkpoint`, and if the file holds no weights, or objects among
            them.
    """
    content = read_checkpoint(path)
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    lost = [name for name, value in content.items() if is_foreign(value)]
    if lost:
        raise ValueError(f'{path} holds values that are no plain tensors, in {", ".join(map(str, lost[:8]))}')
    weights = OrderedDict(
        (name.removeprefix('module.'), value.detach()) for name, value in content.items() if isinstance(value, Tensor)
    )
    keep_metadata(weights, content, 'module.')
    if not weights:
        raise ValueError(
            f'{path} holds no weights, neither bare nor under state_dict or model; keys: {list(content)[:10]}'
        )
    return weights


def keep_metadata(weights: OrderedDict, source: Mapping[str, Any], prefix: str = '') -> None:
    """Hands on what a ``state_dict`` tells of its modules, such as versions and the grids of position embeddings.

    Args:
        weights (OrderedDict): Weights of ``source``, by their names below ``prefix``. Gets the metadata.
        source (Mapping): Maybe with metadata.
        prefix (str): Taken from the names of modules; those outside of it are left out, unless all are. Defaults to ''.
    """
    told = {f'{name}.': value for name, value in (getattr(source, '_metadata', None) or {}).items()}
    inside = {name: value for name, value in told.items() if name.startswith(prefix)} or told
    if inside:
        weights._metadata = OrderedDict((name.removeprefix(prefix)[:-1], value) for name, value in inside.items())


def check_fit(
    model: nn.Module, weights: Mapping[str, Tensor], source: str, may_differ: Iterable[str] = TRAINING_ONLY
) -> None:
    """Refuses weights of another architecture, which mmengine would load as far as they fit and only log the rest.

    They are loaded into a copy of the model, so that what its load hooks mend, such as position embeddings of another
    input size, passes.

    Args:
        model (nn.Module): What the weights are for, in a parallel wrapper or not.
        weights (Mapping[str, Tensor]): By name.
        source (str): Named in the error, such as the file.
        may_differ (Iterable[str]): Beginnings of names that may be missing, left over, or of another shape. Defaults to
            what only training uses.

    Raises:
        ValueError: With the names and shapes that differ.
    """
    allowed = tuple(may_differ)
    copied = copy.deepcopy(unwrap_model(model))
    own = copied.state_dict().items()
    judged = OrderedDict((name, value) for name, value in own if name.startswith(allowed))
    judged.update((name, value) for name, value in weights.items() if not name.startswith(allowed))
    keep_metadata(judged, weights)
    load_strictly(copied, judged, source)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads all or fails; errors name the source and at most 20 of the names and shapes that differ.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, after the load hooks.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        lines = [line if len(line) < 800 else f'{line[:800]} ...' for line in lines[1:] or lines]
        raise ValueError('\n'.join([f'{source} does not fit {type(module).__name__}:', *lines[:20]])) from None


def write_weights(path: str | Path, weights: Mapping[str, Tensor], hashed: bool = False) -> Path:
    """Writes weights under ``state_dict``, as mmengine reads them; a crash leaves no half-written file behind.

    Args:
        path (str | Path): Replaced if it exists. Missing folders are made.
        weights (Mapping[str, Tensor]): By name.
        hashed (bool): Whether to put the first 8 digits of the file's SHA-256 into its name, as OpenMMLab does:
            ``pvt.pth`` becomes ``pvt-0123abcd.pth``. The same weights give the same bytes. Defaults to False.

    Returns:
        Path: What was written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Clones: a view would drag its whole storage into the file. Contiguous: the bytes would show the order in memory.
    cloned = ((name, value.detach().clone(memory_format=torch.contiguous_format)) for name, value in weights.items())
    content = {'meta': {}, 'state_dict': OrderedDict(cloned)}
    keep_metadata(content['state_dict'], weights)
    unfinished = path.with_name(f'.{path.name}-{secrets.token_hex(4)}')
    try:
        with unfinished.open('xb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if hashed:
            digest = hashlib.sha256(unfinished.read_bytes()).hexdigest()
            path = path.with_name(f'{path.name.removesuffix(".pth")}-{digest[:8]}.pth')
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path
