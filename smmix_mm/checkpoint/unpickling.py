"""A reader of ``torch.save``'s files that builds data and executes nothing.

A pickle names functions, and its reader calls them. This reader calls only those that build tensors, containers,
numbers, NumPy arrays and mmengine's history buffers; everything else becomes a :class:`Foreign` placeholder.
"""

import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_STORAGES = {
    f'{dtype}Storage'
    for dtype in ('Double', 'Float', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool')
}
# Attributes of mmengine's HistoryBuffer; no others are taken from a file.
_HISTORY = ('max_length', '_log_history', '_count_history')


class Foreign:
    """Placeholder of an object that is not built; ignores all operations of the pickle on it.

    Attributes:
        kind (str): Name of its class, or of the function that would have made it.
    """

    kind = ''

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

    def __call__(self, *args: Any, **kwargs: Any) -> 'Foreign':
        return self

    def __hash__(self) -> int:
        return id(self)


def _foreign(kind: str) -> type[Foreign]:
    return type('Foreign', (Foreign,), {'kind': kind})


def _encode(text: str, encoding: str) -> bytes:
    """Encodes bytes as the pickles of ``torch.save`` do, and refuses other codecs, which may run any code."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes are encoded as {encoding!r}, but only latin1 is supported')
    return text.encode(encoding)


def _make_dtype(code: str, *_: Any) -> np.dtype:
    if not isinstance(code, str) or code.lstrip('<>=|')[:1] not in tuple('biufcSUO'):
        raise pickle.UnpicklingError(f'a NumPy array has the unsupported type {code!r}')
    return np.dtype(code)


def _get_annealing(owner: Any, name: Any) -> Any:
    """Looks up the only attribute that mmengine's states need: the curve of its one-cycle schedule."""
    if owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(owner, name)
    return _foreign(f'{getattr(owner, "kind", None) or getattr(owner, "__name__", "object")}.{name}')


# Taken from the running NumPy, since before version 2 these functions are in another module.
_RECONSTRUCT, _SCALAR = (value.__reduce__()[0] for value in (np.zeros(1), np.float64(0)))
_ADMITTED: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('collections', 'Counter'): Counter,
    ('_codecs', 'encode'): _encode,
    ('torch', 'Size'): torch.Size,
    ('torch', 'device'): torch.device,
    ('torch._utils', '_rebuild_tensor'): torch._utils._rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch._utils', '_rebuild_parameter'): torch._utils._rebuild_parameter,
    ('torch.storage', 'UntypedStorage'): torch.UntypedStorage,
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): _make_dtype,
    ('mmengine.logging.history_buffer', 'HistoryBuffer'): HistoryBuffer,
    ('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'): OneCycleParamScheduler,
    **{
        (module, name): function
        for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
        for name, function in (('_reconstruct', _RECONSTRUCT), ('scalar', _SCALAR))
    },
    # Protocol 2, which torch writes, uses the module names of Python 2.
    **{
        (module, kind.__name__): kind
        for module in ('builtins', '__builtin__')
        for kind in (set, frozenset, complex, bytearray, slice)
    },
    **{(module, 'getattr'): _get_annealing for module in ('builtins', '__builtin__')},
}


class RestrictedUnpickler(pickle._Unpickler):
    """Imports and calls only :data:`_ADMITTED`, and sets only attributes of data."""

    dispatch = {**pickle._Unpickler.dispatch}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        if module == 'torch' and (name in _STORAGES or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        return _foreign(f'{module.replace("__builtin__", "builtins")}.{name}')

    def load_build(self) -> None:
        """Restricts the state of objects, by which a file could set attributes of functions and classes."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is OrderedDict and isinstance(state, dict) and isinstance(state.get('_metadata'), dict):
            # Versions of the modules of a state_dict, which some load hooks read.
            target._metadata = state['_metadata']
        elif type(target) is np.ndarray:
            target.__setstate__(state)
        elif isinstance(target, np.dtype):
            if state[1] == '>':
                raise pickle.UnpicklingError('a NumPy array is big-endian, which is not supported')
        elif type(target) is HistoryBuffer:
            # The file holds the names of its methods too; use those of the class.
            target._set_default_statistics()
            for key in _HISTORY:
                if isinstance(state.get(key), (int, np.ndarray)):
                    vars(target)[key] = state[key]

    dispatch[pickle.BUILD[0]] = load_build


# torch.load needs a module with these names. Its own `weights_only` mode refuses a whole file because of one
# argparse.Namespace, and torch 2.1 has no list of allowed exceptions.
_restricted_pickle = SimpleNamespace(
    Unpickler=RestrictedUnpickler,
    load=lambda file, **kwargs: RestrictedUnpickler(file, **kwargs).load(),
    __name__='restricted_pickle',
)


def read_file(file: Any, mmap: bool | None = None) -> Any:
    """Reads a file of ``torch.save``, in its present or its former format, to the CPU.

    Args:
        file (str | Path | IO[bytes]): A path, or an open file.
        mmap (bool, optional): As in ``torch.load``; not for the former format. Defaults to None.

    Returns:
        Any: The content, with :class:`Foreign` objects in the place of those of unsupported types.

    Raises:
        ValueError: If the file cannot be read, or is a TorchScript program.
    """
    return _read(torch.load, file, 'cpu', mmap)


@contextmanager
def restricted_torch_load() -> Iterator[None]:
    """Makes ``torch.load`` read as :func:`read_file` does, for libraries that call it themselves."""
    stock = torch.load

    def load(f: Any, map_location: Any = None, *_: Any, mmap: bool | None = None, **__: Any) -> Any:
        return _read(stock, f, map_location, mmap)

    torch.load = load
    try:
        yield
    finally:
        torch.load = stock


def find_foreign(value: Any, place: str = '') -> Iterator[tuple[str, str]]:
    """Finds the places and kinds of :class:`Foreign` objects in a content: ``('meta.cfg', 'mmcv.Config')``.

    Args:
        value (Any): As :func:`read_file` returns it.
        place (str): Name of ``value``. Defaults to ''.
    """
    if is_foreign(value):
        yield place, value.kind
    elif isinstance(value, Mapping):
        for key, item in value.items():
            name = key.kind if is_foreign(key) else key
            if is_foreign(key):
                yield f'{place}.{name}'.lstrip('.'), key.kind
            yield from find_foreign(item, f'{place}.{name}'.lstrip('.'))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from find_foreign(item, f'{place}.{index}'.lstrip('.'))
    elif isinstance(value, np.ndarray) and value.dtype == object:
        yield from find_foreign(value.ravel().tolist(), place)
    elif type(value) is HistoryBuffer:
        yield from find_foreign([vars(value).get(key) for key in _HISTORY], place)


def is_foreign(value: Any) -> bool:
    """Whether a value is a placeholder of an object, or of a function or class that the pickle only names."""
    return isinstance(value, Foreign) or (isinstance(value, type) and issubclass(value, Foreign))


def _read(load: Callable, file: Any, map_location: Any, mmap: bool | None) -> Any:
    is_path = isinstance(file, str | Path)
    name = str(file) if is_path else 'the file'
    _refuse_programs(file, name)
    settings = dict(map_location=map_location, pickle_module=_restricted_pickle, weights_only=False)
    try:
        # torch 2.1 maps a file only if its name is a string.
        return load(str(file) if is_path else file, **settings, **({'mmap': mmap} if mmap else {}))
    except FileNotFoundError:
        raise
    except Exception as error:
        size = f' ({Path(file).stat().st_size} bytes)' if is_path and Path(file).is_file() else ''
        raise ValueError(
            f'{name}{size} cannot be read as a checkpoint; it is truncated or has another format: {error}'
        ) from error


def _refuse_programs(file: Any, name: str) -> None:
    """Refuses TorchScript, which is code that torch.load would hand to torch.jit."""
    position = None if isinstance(file, str | Path) else file.tell()
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if any(entry.endswith('/constants.pkl') for entry in archive.namelist()):
                    raise ValueError(f'{name} is a TorchScript program, not a checkpoint')
    finally:
        if position is not None:
            file.seek(position)
