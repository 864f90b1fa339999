"""Strict loading of backbones and classifiers: every tensor has to match, or an error names those that do not.

Callers name the parts that a classifier may have beside its backbone; see :mod:`smmix_mm.models.pretrained`.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import get_file_backend, get_local_path
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from torch import Tensor, nn

from .fit import load_strictly
from .weights import keep_metadata, read_weights, shorten


def find_backbone(
    keys: Iterable[str], names: Iterable[str], source: str, prefix: str | None = None, beside: Iterable[str] = ()
) -> str:
    """Finds the prefix of a backbone's names in a checkpoint.

    It is the prefix with which more than half of the backbone's parts occur. A backbone that lacks a tensor, or is of
    another depth, is thus still found, and errors can name the missing tensors.

    Args:
        keys (Iterable[str]): Names in the checkpoint, without a leading ``module.``.
        names (Iterable[str]): The backbone's own names, or the beginnings of them.
        source (str): Named in the error, such as the file.
        prefix (str, optional): Search below this prefix alone, with or without its last dot. Defaults to None.
        beside (Iterable[str]): Parts of a classifier that are not searched, since one may hold another copy of the
            backbone. Defaults to none.

    Returns:
        str: Empty, or ending in a dot.

    Raises:
        ValueError: If the backbone is not found, or found in several places.
    """
    keys = list(keys)
    start = normalise_prefix(prefix)
    searched = [key for key in keys if key.startswith(start)]
    if not searched:
        raise ValueError(f'{source} has no tensors with prefix={prefix!r}; it has {shorten(keys)}')
    parts = {name.partition('.')[0] for name in names}
    passed_over = set(beside) - parts
    found = defaultdict(set)
    for key in searched:
        steps = key.split('.')
        if key[len(start) :].partition('.')[0] in passed_over:
            continue
        for depth, step in enumerate(steps):
            if step in parts:
                found['.'.join([*steps[:depth], ''])].add(step)
    places = [place for place, seen in found.items() if place.startswith(start) and 2 * len(seen) > len(parts)]
    if not places:
        below = f' under prefix={prefix!r}' if start else ''
        raise ValueError(
            f'{source} has no backbone with parts {", ".join(sorted(parts))}{below}; it has {shorten(searched)}'
        )
    if len(places) > 1:
        examples = ', '.join(next(key for key in searched if key.startswith(place)) for place in places)
        raise ValueError(
            f'{source} has {len(places)} backbones with parts {", ".join(sorted(parts))}, with names such as '
            f'{examples}; set prefix to one of {", ".join(repr(place) for place in places if place)}'
        )
    return places[0]


def split_backbone(
    weights: Mapping[str, Tensor],
    place: str,
    names: Iterable[str],
    source: str,
    prefix: str | None = None,
    beside: Iterable[str] = (),
) -> tuple['OrderedDict[str, Tensor]', list[str]]:
    """Separates the weights of a backbone from those of the classifiers beside it.

    Args:
        weights (Mapping[str, Tensor]): By name, without a leading ``module.``.
        place (str): Prefix of the backbone, see :func:`find_backbone`.
        names (Iterable[str]): The backbone's own names, or the beginnings of them.
        source (str): Named in the error, such as the file.
        prefix (str, optional): All names without this prefix are left out. Defaults to None.
        beside (Iterable[str]): Parts of a classifier that are left out. Defaults to none.

    Returns:
        tuple[OrderedDict[str, Tensor], list[str]]: The backbone's weights by their names below ``place``, and the names
        that are left out.

    Raises:
        ValueError: If there are any other names.
    """
    start, parts, beside = normalise_prefix(prefix), {name.partition('.')[0] for name in names}, tuple(beside)
    backbone, left_out, strange = OrderedDict(), [], []
    for key, value in weights.items():
        steps = _steps_below(key, place)
        is_classifier = len(steps) > 1 and steps[0] in beside
        if key.startswith(place) and (steps[0] in parts or not is_classifier):
            backbone[key.removeprefix(place)] = value
        elif is_classifier or not key.startswith(start):
            left_out.append(key)
        else:
            strange.append(key)
    keep_metadata(backbone, weights, place)
    if strange:
        hint = f"; use prefix='{place}' to load only the backbone" if place and place != start else ''
        raise ValueError(
            f'{source} has {len(strange)} tensors that belong neither to the backbone nor to a classifier '
            f'({", ".join(beside)}): {shorten(strange)}{hint}'
        )
    return backbone, left_out


def load_backbone(
    backbone: nn.Module,
    path: str | Path,
    prefix: str | None = None,
    beside: Iterable[str] = (),
    fresh: Iterable[str] = (),
) -> None:
    """Loads a backbone strictly, from a checkpoint of the backbone alone or of a classifier.

    mmengine's own loading takes the tensors that fit and logs the rest. Here every tensor of the backbone has to be in
    the file, and every tensor of the file has to be accounted for. Differences that the backbone's load hooks resolve
    are accepted, such as position embeddings of another input size.

    Args:
        backbone (nn.Module): Loaded in place.
        path (str | Path): A file, or an address that :mod:`mmengine.fileio` reads, such as ``https://`` or ``s3://``;
            see :func:`read_weights` for what it may hold.
        prefix (str, optional): Load the names with this prefix, given with or without its last dot, and ignore all
            others; such as ``'backbone'`` for a detector's backbone. Defaults to None: the backbone is found by its
            names, and the file may hold nothing else but ``beside``.
        beside (Iterable[str]): Parts of a classifier that the file may hold too. Defaults to none.
        fresh (Iterable[str]): Parts of the backbone that the file does not hold, and that are not loaded. Defaults to
            none.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the address cannot be fetched.
        ValueError: If the address is of an unknown kind, the file cannot be read, the backbone is not in it or in it
            several times, if tensors are missing, unexpected, or of another shape, or if the backbone has no part of
            ``fresh``.
    """
    source, fresh = str(path), (fresh,) if isinstance(fresh, str) else tuple(fresh)
    weights = _fetch_weights(path)
    present = backbone.state_dict()
    own = {name: value.shape for name, value in present.items()}
    parts = dict.fromkeys(name.partition('.')[0] for name in own)
    unknown = set(fresh) - set(parts)
    if unknown:
        raise ValueError(
            f'fresh of init_cfg names {sorted(unknown)}, but {type(backbone).__name__} has no such parts; it has '
            f'{", ".join(parts)}'
        )
    expected = [name for name in own if name.partition('.')[0] not in fresh]
    place = find_backbone(weights, expected, source, prefix, beside)
    given, left_out = split_backbone(weights, place, own, source, prefix, beside)
    kept = {name: value for name, value in present.items() if name.partition('.')[0] in fresh and name not in given}
    loaded = [name for name in given if name in own]
    fitted = [name for name in loaded if given[name].shape != own[name]]
    left_out = [name for name in given if name not in own] + left_out
    summary = dict.fromkeys(_abbreviate(name, '' if name in given else place) for name in left_out)
    given.update(kept)
    told = f'; kept as drawn: {", ".join(kept)}' if kept else ''
    load_strictly(backbone, given, source)
    print_log(
        f'{source}: loaded {len(loaded)} of {len(weights)} tensors into {type(backbone).__name__}'
        f'{f" from {place}*" if place else ""}; left out: {", ".join(summary) or "nothing"}; '
        f'shapes fitted: {", ".join(fitted) or "none"}{told}',
        logger='current',
    )


def load_classifier(
    classifier: nn.Module, path: str | Path, prefix: str | None = None, training_only: Iterable[str] = ()
) -> None:
    """Loads a classifier from a checkpoint strictly. Parts that only training uses are skipped.

    Args:
        classifier (nn.Module): Such as mmpretrain's ``ImageClassifier``; loaded in place.
        path (str | Path): As in :func:`load_backbone`.
        prefix (str, optional): Load the names with this prefix, given with or without its last dot. Defaults to None.
        training_only (Iterable[str]): Parts that only training uses. Defaults to none.

    Raises:
        FileNotFoundError, OSError: As :func:`load_backbone`.
        ValueError: If the file cannot be read, has no names with the prefix, or if tensors are missing, unexpected, or
            of another shape.
    """
    source, start = str(path), normalise_prefix(prefix)
    weights = _fetch_weights(path)
    given = OrderedDict((name.removeprefix(start), value) for name, value in weights.items() if name.startswith(start))
    if not given:
        raise ValueError(f'{source} has no tensors with prefix={prefix!r}; it has {shorten(weights)}')
    left_out = set(training_only) - {name.partition('.')[0] for name in classifier.state_dict()}
    kept = OrderedDict((name, value) for name, value in given.items() if name.partition('.')[0] not in left_out)
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
            f'set checkpoint in that init_cfg to another file'
        )
    return read_weights(path)


def normalise_prefix(prefix: str | None) -> str:
    """The prefix as in the names of :func:`read_weights`: without a leading ``module.``, with a last dot."""
    prefix = (prefix or '').rstrip('.')
    return f'{prefix}.'.removeprefix('module.') if prefix else ''


def _steps_below(name: str, place: str) -> list[str]:
    """The components of a name after those that it has in common with a place."""
    steps = name.split('.')
    for step in place.split('.')[:-1]:
        if len(steps) == 1 or steps[0] != step:
            break
        steps = steps[1:]
    return steps


def _abbreviate(name: str, place: str) -> str:
    steps = _steps_below(name, place)
    return steps[0] if len(steps) == 1 else f'{steps[0]}.*'


class BackboneInit:
    """:func:`load_backbone` as an initialiser of mmengine.

    Args:
        checkpoint (str): As ``path`` of :func:`load_backbone`.
        prefix (str, optional): As in :func:`load_backbone`. Defaults to None.
        beside (Iterable[str]): As in :func:`load_backbone`. Defaults to none.
        fresh (Iterable[str]): As in :func:`load_backbone`. Defaults to none.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, beside: Iterable[str] = (), fresh: Iterable[str] = ()
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.beside = beside
        self.fresh = fresh

    def __call__(self, module: nn.Module) -> None:
        load_backbone(module, self.checkpoint, self.prefix, self.beside, self.fresh)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, f'{type(self).__name__}: load from {self.checkpoint}')


def is_pretrained(init_cfg: dict | list[dict] | None) -> bool:
    """Whether an ``init_cfg`` loads weights."""
    configs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
    return any(_loads(config) for config in configs)


def _loads(config: dict) -> bool:
    kind = config['type']
    return kind == 'Pretrained' or (isinstance(kind, type) and issubclass(kind, PretrainedInit))


@contextmanager
def strict_init_cfg(module: BaseModule, beside: Iterable[str] = ()) -> Iterator[None]:
    """Makes mmengine's ``init_weights`` load ``init_cfg`` strictly, see :func:`with_strict_loading`."""
    written = module.init_cfg
    module.init_cfg = with_strict_loading(written, beside)
    try:
        yield
    finally:
        module.init_cfg = written


def with_strict_loading(init_cfg: dict | list[dict] | None, beside: Iterable[str] = ()) -> list[dict]:
    """Replaces mmengine's ``Pretrained`` by :func:`load_backbone`.

    Args:
        init_cfg (dict | list[dict], optional): Not changed.
        beside (Iterable[str]): As in :func:`load_backbone`. Defaults to none.

    Returns:
        list[dict]: The same with :class:`BackboneInit` in the place of ``Pretrained``, and last, as in mmengine.

    Raises:
        ValueError: If a ``Pretrained`` names no checkpoint, or has unknown settings.
    """
    others, pretrained = [], []
    for cfg in [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []:
        if not _loads(cfg):
            others.append(cfg)
            continue
        # map_location has no effect, since weights are copied to the device of the backbone, and all loading is strict.
        unknown = set(cfg) - {'type', 'checkpoint', 'prefix', 'map_location', 'strict', 'fresh'}
        if unknown:
            raise ValueError(f"init_cfg of type 'Pretrained' takes checkpoint and prefix, but got {sorted(unknown)}")
        if not cfg.get('strict', True):
            raise ValueError("init_cfg of type 'Pretrained' loads strictly here, but got strict=False; leave it out")
        checkpoint, prefix = cfg.get('checkpoint'), cfg.get('prefix')
        if not isinstance(checkpoint, str | Path) or not str(checkpoint):
            raise ValueError(f"init_cfg of type 'Pretrained' needs the path of a checkpoint, but got {checkpoint!r}")
        pretrained.append(
            dict(
                type=BackboneInit,
                checkpoint=checkpoint,
                prefix=prefix,
                beside=tuple(beside),
                fresh=cfg.get('fresh', ()),
            )
        )
    return others + pretrained
