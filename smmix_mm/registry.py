"""Registries of the scope ``smmix_mm``.

They are children of mmengine's roots, not of mmpretrain's: a child of mmpretrain's would not be found from mmdet or
mmseg. ``BATCH_AUGMENTS`` has no root above mmpretrain's, so it is a child of that one.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry
from mmpretrain.registry import BATCH_AUGMENTS as MMPRETRAIN_BATCH_AUGMENTS

SCOPE = 'smmix_mm'

MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=['smmix_mm.models'])
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope=SCOPE, locations=['smmix_mm.datasets'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=['smmix_mm.datasets'])
BATCH_AUGMENTS = Registry('batch augment', parent=MMPRETRAIN_BATCH_AUGMENTS, scope=SCOPE, locations=['smmix_mm.mixing'])
ADAPTERS = Registry('adapter', scope=SCOPE, locations=['smmix_mm.adapters'])
