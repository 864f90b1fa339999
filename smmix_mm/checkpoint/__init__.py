"""Files of weights, read without executing what is pickled in them.

Once this package is imported, mmengine's own ``CheckpointLoader`` reads files in that way too, see
:func:`guard_mmengine`.
"""

from .guard import guard_mmengine, without_foreign
from .unpickling import Foreign, find_foreign, read_file, restricted_torch_load

__all__ = [
    'Foreign',
    'find_foreign',
    'guard_mmengine',
    'read_file',
    'restricted_torch_load',
    'without_foreign',
]

guard_mmengine()
