"""Loading backbones from checkpoints of classifiers, or not at all."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import get_file_backend, get_local_path
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from torch import Tensor, nn

from .checkpoint import TRAINING_ONLY, keep_metadata, load_strictly, read_weights

# What only training uses, under our names and under the official one of SMMix's region classifier.
NOT_EVALUATED = (*(name.rstrip('.') for name in TRAINING_ONLY), 'token_head')
# What classification checkpoints hold beside a backbone.
CLASSIFIERS = ('head', *NOT_EVALUATED)


def find_backbone(keys: Iterable[str], names: Iterable[str], source: str, prefix: str | None = None) -> str:
    """Finds the prefix below which a backbone stands among the names of a checkpoint.

    It is the one below which more than half of the backbone's parts occur, so that a checkpoint that lacks a tensor, or
    is of another depth, is still found, and what it lacks can be told.

    Args:
        keys (Iterable[str]): Names in the checkpoint, without a leading ``module.``.
        names (Iterable[str]): The backbone's own names, or the beginnings of them.
        source (str): Named in the error, such as the file.
        prefix (str, optional): Search below this prefix alone, with or without its last dot. Defaults to None.

    Returns:
        str: Empty, or ending in a dot.

    Raises:
        ValueError: If the backbone stands nowhere, or in several places.
    """
    keys = list(keys)
    start = normalise_prefix(prefix)
    searched = [key for key in keys if key.startswith(start)]
    if not searched:
        raise ValueError(f'{source} has no names below prefix={prefix!r}; it has {_some(keys)}')
    parts = {name.partition('.')[0] for name in names}
    found = defaultdict(set)
    for key in searched:
        steps = key.split('.')
        # A method may hold a copy of the backbone, which is not the one that was asked for.
        if key[len(start) :].partition('.')[0] == 'mixing':
            continue
        for depth, step in enumerate(steps):
            if step in parts:
                found['.'.join([*steps[:depth], ''])].add(step)
    places = [place for place, seen in found.items() if place.startswith(start) and 2 * len(seen) > len(parts)]
    if not places:
        below = f' below prefix={prefix!r}' if start else ''
        raise ValueError(
            f'{source} has no backbone with parts {", ".join(sorted(parts))}{below}; it has {_some(searched)}'
        )
    if len(places) > 1:
        examples = ', '.join(next(key for key in searched if key.startswith(place)) for place in places)
        raise ValueError(
            f'{source} has {len(places)} backbones with parts {", ".join(sorted(parts))}, with names such as '
            f'{examples}; choose one of them by a prefix: {", ".join(repr(place) for place in places if place)}'
        )
    return places[0]


def split_backbone(
    weights: Mapping[str, Tensor], place: str, names: Iterable[str], source: str, prefix: str | None = None
) -> tuple['OrderedDict[str, Tensor]', list[str]]:
    """Parts the weights of a backbone from the classifiers beside it.

    Args:
        weights (Mapping[str, Tensor]): By name, without a leading ``module.``.
        place (str): Where the backbone stands, see :func:`find_backbone`.
        names (Iterable[str]): The backbone's own names, or the beginnings of them.
        source (str): Named in the error, such as the file.
        prefix (str, optional): What lies outside of it is left out, whatever it is. Defaults to None.

    Returns:
        tuple[OrderedDict[str, Tensor], list[str]]: The backbone's weights by their names below ``place``, and the names
        of what is left out.

    Raises:
        ValueError: If there is anything else.
    """
    start, parts = normalise_prefix(prefix), {name.partition('.')[0] for name in names}
    backbone, left_out, strange = OrderedDict(), [], []
    for key, value in weights.items():
        steps = _apart(key, place)
        is_classifier = len(steps) > 1 and steps[0] in CLASSIFIERS
        if key.startswith(place) and (steps[0] in parts or not is_classifier):
            backbone[key.removeprefix(place)] = value
        elif is_classifier or not key.startswith(start):
            left_out.append(key)
        else:
            strange.append(key)
    keep_metadata(backbone, weights, place)
    if strange:
        hint = f"; prefix='{place}' takes the backbone alone" if place and place != start else ''
        raise ValueError(
            f'{source} has {len(strange)} tensors that belong neither to the backbone nor to a classifier '
            f'({", ".join(CLASSIFIERS)}): {_some(strange)}{hint}'
        )
    return backbone, left_out


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Loads a backbone from a checkpoint of the backbone alone or of a classifier around it, and refuses half a fit.

    mmengine's own loading takes what fits and logs the rest. Here every tensor of the backbone has to be there, and
    every tensor of the file has to be accounted for; what the backbone's load hooks mend, such as position embeddings
    of another input size, passes.

    Args:
        backbone (nn.Module): Loaded in place.
        path (str | Path): A file, or an address that :mod:`mmengine.fileio` reads, such as ``https://`` or ``s3://``;
            see :func:`read_weights` for what it may hold.
        prefix (str, optional): Load what stands below this prefix, with or without its last dot, and leave all else
            alone, such as ``'backbone'`` for a detector's backbone. Defaults to None: the backbone is found by its
            names, and nothing but classifiers may stand beside it.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the address cannot be fetched.
        ValueError: If the address is of an unknown kind, the file cannot be read, the backbone is not in it or several
            times, or if tensors are missing, unexpected, or of another shape.
    """
    source = str(path)
    weights = _fetch_weights(path)
    own = {name: value.shape for name, value in backbone.state_dict().items()}
    place = find_backbone(weights, own, source, prefix)
    given, left_out = split_backbone(weights, place, own, source, prefix)
    load_strictly(backbone, given, source)
    loaded = [name for name in given if name in own]
    fitted = [name for name in loaded if given[name].shape != own[name]]
    left_out = [name for name in given if name not in own] + left_out
    summary = dict.fromkeys(_summarise(name, '' if name in given else place) for name in left_out)
    print_log(
        f'{source}: loaded {len(loaded)} of {len(weights)} tensors into {type(backbone).__name__}'
        f'{f" from {place}*" if place else ""}; left out: {", ".join(summary) or "nothing"}; '
        f'shapes fitted: {", ".join(fitted) or "none"}',
        logger='current',
    )


def load_classifier(classifier: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Loads a classifier from a checkpoint, all of it or none; what only training uses is left out.

    Args:
        classifier (nn.Module): Such as mmpretrain's ``ImageClassifier``; loaded in place.
        path (str | Path): As in :func:`load_backbone`.
        prefix (str, optional): Load what stands below this prefix, with or without its last dot. Defaults to None.

    Raises:
        FileNotFoundError, OSError: As :func:`load_backbone`.
        ValueError: If the file cannot be read, has no names below the prefix, or if tensors are missing, unexpected, or
            of another shape.
    """
    source, start = str(path), normalise_prefix(prefix)
    weights = _fetch_weights(path)
    given = OrderedDict((name.removeprefix(start), value) for name, value in weights.items() if name.startswith(start))
    if not given:
        raise ValueError(f'{source} has no names below prefix={prefix!r}; it has {_some(weights)}')
    own = {name.partition('.')[0] for name in classifier.state_dict()}
    kept = OrderedDict(
        (name, value)
        for name, value in given.items()
        if name.partition('.')[0] in own or name.partition('.')[0] not in NOT_EVALUATED
    )
    keep_metadata(kept, weights, start)
    load_strictly(classifier, kept, source)
    print_log(
        f'{source}: loaded {len(kept)} of {len(weights)} tensors into {type(classifier).__name__}', logger='current'
    )


def _fetch_weights(path: str | Path) -> 'OrderedDict[str, Tensor]':
    if '://' in str(path):
        try:
            get_file_backend(path)
        except KeyError as error:
            raise ValueError(f'{path} of init_cfg: mmengine.fileio has no backend for {error.args[0]}://') from error
        try:
            with get_local_path(path) as fetched:
                return read_weights(fetched)
        except OSError as error:
            raise OSError(f'{path} of init_cfg cannot be fetched: {error}') from error
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no checkpoint {path}, which an init_cfg names: train it first with the pretraining config, or '
            f'set the checkpoint of that init_cfg to another file'
        )
    return read_weights(path)


def normalise_prefix(prefix: str | None) -> str:
    """As it stands before names that :func:`read_weights` gives: without a leading ``module.``, with a last dot."""
    prefix = (prefix or '').rstrip('.')
    return f'{prefix}.'.removeprefix('module.') if prefix else ''


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')


def _apart(name: str, place: str) -> list[str]:
    """The steps of a name after those that it has in common with a place."""
    steps = name.split('.')
    for step in place.split('.')[:-1]:
        if len(steps) == 1 or steps[0] != step:
            break
        steps = steps[1:]
    return steps


def _summarise(name: str, place: str) -> str:
    steps = _apart(name, place)
    return steps[0] if len(steps) == 1 else f'{steps[0]}.*'


class BackboneInit:
    """:func:`load_backbone` as an initialiser of mmengine's.

    Args:
        checkpoint (str): As ``path`` of :func:`load_backbone`.
        prefix (str, optional): As in :func:`load_backbone`. Defaults to None.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix

    def __call__(self, module: nn.Module) -> None:
        load_backbone(module, self.checkpoint, self.prefix)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, f'{type(self).__name__}: load from {self.checkpoint}')


def is_pretrained(init_cfg: dict | list[dict] | None) -> bool:
    """Whether an ``init_cfg`` loads weights."""
    configs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
    return any(config['type'] in ('Pretrained', PretrainedInit) for config in configs)


@contextmanager
def strict_init_cfg(module: BaseModule) -> Iterator[None]:
    """Has the ``init_weights`` of mmengine's load strictly what its ``init_cfg`` names: :func:`with_strict_loading`."""
    written = module.init_cfg
    module.init_cfg = with_strict_loading(written)
    try:
        yield
    finally:
        module.init_cfg = written


def with_strict_loading(init_cfg: dict | list[dict] | None) -> list[dict]:
    """Has :func:`load_backbone` do what mmengine's ``Pretrained`` would do.

    Args:
        init_cfg (dict | list[dict], optional): Left alone.

    Returns:
        list[dict]: The same with :class:`BackboneInit` in the place of ``Pretrained``, and last, as mmengine has it.

    Raises:
        ValueError: If a ``Pretrained`` names no checkpoint, or has settings that it does not know.
    """
    others, pretrained = [], []
    for cfg in [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []:
        if cfg['type'] not in ('Pretrained', PretrainedInit):
            others.append(cfg)
            continue
        # map_location: mmengine's, and without effect, since weights are copied to where the backbone is.
        unknown = set(cfg) - {'type', 'checkpoint', 'prefix', 'map_location'}
        if unknown:
            raise ValueError(f"init_cfg of type 'Pretrained' takes checkpoint and prefix, but got {sorted(unknown)}")
        checkpoint, prefix = cfg.get('checkpoint'), cfg.get('prefix')
        if not isinstance(checkpoint, str | Path) or not str(checkpoint):
            raise ValueError(f"init_cfg of type 'Pretrained' needs a checkpoint, a path, but got {checkpoint!r}")
        pretrained.append(dict(type=BackboneInit, checkpoint=checkpoint, prefix=prefix))
    return others + pretrained
