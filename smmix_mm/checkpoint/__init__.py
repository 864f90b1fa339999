"""Reads checkpoints without executing pickled code, compares them with a model, loads them strictly and writes them.

Once this package is imported, mmengine's own ``CheckpointLoader`` executes no pickled code either, see
:func:`guard_mmengine`.
"""

from .fit import check_fit, load_except, load_strictly
from .guard import guard_mmengine, hand_on, without_foreign
from .strict_loading import load_backbone, load_classifier
from .unpickling import Foreign, find_foreign, read_file, restricted_torch_load
from .weights import find_weights, read_checkpoint, read_weights, write_weights
from .whole import TornCheckpointError, check_whole, read_whole

__all__ = [
    'Foreign',
    'TornCheckpointError',
    'check_fit',
    'check_whole',
    'find_foreign',
    'find_weights',
    'guard_mmengine',
    'hand_on',
    'load_backbone',
    'load_classifier',
    'load_except',
    'load_strictly',
    'read_checkpoint',
    'read_file',
    'read_weights',
    'read_whole',
    'restricted_torch_load',
    'without_foreign',
    'write_weights',
]

guard_mmengine()
