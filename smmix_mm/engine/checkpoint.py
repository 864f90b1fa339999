"""Reading checkpoints without executing what is pickled in them, telling whether they fit, and writing them."""

import copy
import hashlib
import os
import pickle
import secrets
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from smmix_mm.engine.unwrapping import unwrap_model

# All that tensors, containers and numbers need. Everything else in the file is skipped.
_ADMITTED = {
    ('collections', 'OrderedDict'),
    ('torch', 'Size'),
    ('torch', 'device'),
    ('torch._utils', '_rebuild_tensor'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('torch._utils', '_rebuild_parameter'),
    ('torch.storage', 'UntypedStorage'),
}
_ADMITTED_STORAGES = {
    f'{dtype}Storage'
    for dtype in ('Double', 'Float', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool')
}


# What of a classifier only training uses: SMMix's region classifier, and the parameters of methods that have some.
TRAINING_ONLY = ('region_head.', 'mixing.')


class _Skipped:
    """Stands for an object of a class that is not admitted; takes whatever the pickle does to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> '_Skipped':
        return self

    def __hash__(self) -> int:
        return id(self)


class _RestrictedUnpickler(pickle._Unpickler):
    """Builds tensors, containers and numbers; imports and calls nothing else, and changes nothing that it admits."""

    dispatch = {**pickle._Unpickler.dispatch}

    def load_build(self) -> None:
        # The state of an object: dropped, because a file could set attributes of admitted functions and classes by it.
        self.stack.pop()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        is_storage = module == 'torch' and name in _ADMITTED_STORAGES
        is_dtype = module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype)
        if is_storage or is_dtype or (module, name) in _ADMITTED:
            return super().find_class(module, name)
        return _Skipped


def _load(file: Any, **kwargs: Any) -> Any:
    return _RestrictedUnpickler(file, **kwargs).load()


# torch.load asks for a module with these two names. Its own `weights_only` mode refuses whole files because of one
# argparse.Namespace, and torch 2.1 has no list of exceptions.
_restricted_pickle = SimpleNamespace(Unpickler=_RestrictedUnpickler, load=_load, __name__='restricted_pickle')


def read_checkpoint(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU without executing anything that is pickled in it.

    Args:
        path (str | Path): A file of ``torch.save``, in its present or its former format.
        mapped (bool): Whether to read tensors only when they are looked at; not for the former format. Defaults to
            False.

    Returns:
        dict[str, Any]: Its content. Objects other than tensors, containers, numbers and strings, such as the
        ``argparse.Namespace`` in authors' checkpoints, are placeholders without content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                raise ValueError(f'{path} is a TorchScript program, not a checkpoint')
    try:
        settings = dict(map_location='cpu', pickle_module=_restricted_pickle, weights_only=False)
        # torch 2.1 maps files by a name that is a string alone.
        content = torch.load(str(path), mmap=mapped, **settings)
    except Exception as error:
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint; it is truncated, or something else: '
            f'{error}'
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} has to hold a dict, but holds a {type(content).__name__}')
    return dict(content)


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
    lost = [name for name, value in content.items() if isinstance(value, _Skipped)]
    if lost:
        raise ValueError(f'{path} holds values that are no plain tensors, in {", ".join(map(str, lost[:8]))}')
    weights = OrderedDict(
        (name.removeprefix('module.'), value.detach()) for name, value in content.items() if isinstance(value, Tensor)
    )
    if not weights:
        raise ValueError(
            f'{path} holds no weights, neither bare nor under state_dict or model; keys: {list(content)[:10]}'
        )
    return weights


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
    judged = {name: value for name, value in copied.state_dict().items() if name.startswith(allowed)}
    judged |= {name: value for name, value in weights.items() if not name.startswith(allowed)}
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
