"""Makes mmengine load checkpoints by the restricted reader."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from .unpickling import find_foreign, is_foreign, restricted_torch_load
from .weights import shorten

# Parts that resuming a run needs: an object in them that cannot be read is an error, not left out.
NEEDED = ('state_dict', 'ema_state_dict', 'optimizer', 'optim_wrapper', 'param_schedulers', 'message_hub')


# Contents of files that mmengine is about to load, by file name.
_handed_on: dict[str, Any] = {}


def guard_mmengine() -> None:
    """Keeps mmengine's ``CheckpointLoader`` from executing anything that is pickled in a checkpoint, from now on.

    All of OpenMMLab reads checkpoints by it: tests, resumed runs, ``load_from``, ``init_cfg`` of any module, hubs and
    addresses. mmengine's own reader first tries a safe mode, and executes the file if that fails. Checkpoints written
    by mmengine and by our own runs are read completely; see :func:`without_foreign` for the rest.
    """
    stock = CheckpointLoader.load_checkpoint.__func__
    if hasattr(stock, 'guarded'):
        return

    def load_checkpoint(
        cls: type[CheckpointLoader], filename: str, map_location: Any = None, logger: Any = 'current'
    ) -> dict:
        """Loads a file as mmengine does, without executing what is pickled in it."""
        content = _take_handed_on(str(filename), map_location)
        if content is None:
            with restricted_torch_load():
                content = stock(cls, filename, map_location, logger)
        return without_foreign(content, str(filename))

    load_checkpoint.guarded = True
    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)


def hand_on(path: str, content: Any) -> None:
    """Makes mmengine's next loading of a file use the given content, instead of reading the file again.

    Args:
        path (str): The name by which mmengine will load the file.
        content (Any): On the CPU, as :func:`smmix_mm.checkpoint.read_file` returns it. Do not use it afterwards: it may
            be changed in place.
    """
    _handed_on.clear()
    _handed_on[path] = content


def forget_handed_on() -> None:
    """Discards contents that were handed on but not loaded."""
    _handed_on.clear()


def _take_handed_on(path: str, map_location: Any) -> Any:
    content = _handed_on.pop(path, None)
    # Any other map_location may depend on the devices that tensors were saved from, which only the file holds.
    if content is None or not isinstance(map_location, str | torch.device):
        return None
    device = torch.device(map_location)
    return content if device.type == 'cpu' else _to_device(content, device)


def _to_device(value: Any, device: torch.device) -> Any:
    """Moves all tensors in dicts, lists and tuples; dicts and lists in place."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _to_device(item, device)
    elif isinstance(value, list):
        value[:] = [_to_device(item, device) for item in value]
    elif type(value) is tuple:
        return tuple(_to_device(item, device) for item in value)
    return value


def without_foreign(content: Any, source: str) -> Any:
    """Leaves out objects of unsupported types, such as the ``argparse.Namespace`` in authors' checkpoints.

    Args:
        content (Any): As :func:`smmix_mm.checkpoint.read_file` returns it. Changed in place.
        source (str): Named in messages, such as the file.

    Returns:
        Any: The content, without the entries of dicts that hold such an object. The log names them.

    Raises:
        ValueError: If such an object is in a needed part: weights, optimiser, schedules, message hub.
    """
    found = list(find_foreign(content))
    if not found:
        return content
    listed = shorten(f'{place} ({kind})' for place, kind in found)
    if is_foreign(content) or any(place.partition('.')[0] in NEEDED for place, _ in found):
        raise ValueError(
            f'{source} holds objects of unsupported types, which are not loaded because that could execute code: '
            f'{listed}. If you trust the file, read it with torch.load({source!r}, weights_only=False) and save it '
            f'again without them'
        )
    _drop(content)
    print_log(
        f'{source} holds objects of unsupported types; they are left out, because loading them could execute code: '
        f'{listed}',
        'current',
        logging.WARNING,
    )
    return content


def _drop(content: dict) -> None:
    """Removes entries that are foreign or hold foreign objects; nested dicts lose only such entries."""
    for key, value in list(content.items()):
        if isinstance(value, dict) and not is_foreign(key):
            _drop(value)
        elif is_foreign(key) or any(True for _ in find_foreign(value)):
            del content[key]
