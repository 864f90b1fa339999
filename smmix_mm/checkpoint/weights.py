"""Writes weights, and reads checkpoints and their weights without executing what is pickled in them."""

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smmix_mm.files import write_whole

from .unpickling import is_foreign, read_file


def read_checkpoint(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU without executing anything that is pickled in it.

    Args:
        path (str | Path): A file of ``torch.save``, in its present or its former format.
        mapped (bool): Whether to read tensors only when they are accessed; not for the former format. Defaults to
            False.

    Returns:
        dict[str, Any]: Its content. Objects of unsupported types, such as the ``argparse.Namespace`` in authors'
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
    """Reads the weights in a checkpoint, at its top level or under ``state_dict`` or ``model``.

    Args:
        path (str | Path): As in :func:`read_checkpoint`.

    Returns:
        OrderedDict[str, Tensor]: By name, without the ``module.`` of a parallel wrapper.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_checkpoint`, and if the file holds no weights, or other objects
            among them.
    """
    return find_weights(read_checkpoint(path), path)


def find_weights(content: Mapping[str, Any], source: str | Path) -> 'OrderedDict[str, Tensor]':
    """Finds the weights in the content of a checkpoint, as :func:`read_weights` returns them.

    Args:
        content (Mapping): As :func:`read_checkpoint` returns it; not changed.
        source (str | Path): Named in errors, such as the file.

    Raises:
        ValueError: If there are no weights, or other objects among them.
    """
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    lost = [name for name, value in content.items() if is_foreign(value)]
    if lost:
        raise ValueError(
            f'{source} holds values of unsupported types in {", ".join(map(str, lost[:8]))}; save them as plain tensors'
        )
    weights = OrderedDict(
        (name.removeprefix('module.'), value.detach()) for name, value in content.items() if isinstance(value, Tensor)
    )
    keep_metadata(weights, content, 'module.')
    if not weights:
        raise ValueError(
            f'{source} holds no weights at its top level, under state_dict or under model; keys: {list(content)[:10]}'
        )
    return weights


def keep_metadata(weights: OrderedDict, source: Mapping[str, Any], prefix: str = '') -> None:
    """Copies the metadata of a ``state_dict``, such as versions of modules and the grids of position embeddings.

    Args:
        weights (OrderedDict): Weights of ``source``, by their names below ``prefix``. Gets the metadata.
        source (Mapping): With or without metadata.
        prefix (str): Removed from the names of modules; those without it are left out, unless all are. Defaults to ''.
    """
    told = {f'{name}.': value for name, value in (getattr(source, '_metadata', None) or {}).items()}
    inside = {name: value for name, value in told.items() if name.startswith(prefix)} or told
    if inside:
        weights._metadata = OrderedDict((name.removeprefix(prefix)[:-1], value) for name, value in inside.items())


def shorten(names: Iterable[str]) -> str:
    """Lists the first eight names, and how many follow."""
    names = list(names)
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')


def write_weights(path: str | Path, weights: Mapping[str, Tensor], hashed: bool = False) -> Path:
    """Writes weights under ``state_dict``, as mmengine reads them; a crash leaves no incomplete file.

    Args:
        path (str | Path): Replaced if it exists. Missing folders are made.
        weights (Mapping[str, Tensor]): By name.
        hashed (bool): Whether to put the first 8 digits of the file's SHA-256 into its name, as OpenMMLab does:
            ``pvt.pth`` becomes ``pvt-0123abcd.pth``. The same weights give the same bytes. Defaults to False.

    Returns:
        Path: The file that was written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Clones, since a view would save its whole storage. Contiguous, so that the bytes do not depend on strides.
    cloned = ((name, value.detach().clone(memory_format=torch.contiguous_format)) for name, value in weights.items())
    content = {'meta': {}, 'state_dict': OrderedDict(cloned)}
    keep_metadata(content['state_dict'], weights)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    if hashed:
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        path = path.with_name(f'{path.name.removesuffix(".pth")}-{digest[:8]}.pth')
    write_whole(path, lambda unfinished: unfinished.write_bytes(buffer.getbuffer()))
    return path
