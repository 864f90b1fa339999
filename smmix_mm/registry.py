"""Registries of the scope ``smmix_mm``.

They are children of mmengine's root registries: a child of mmpretrain's would not be found from mmdet or mmseg.
``BATCH_AUGMENTS`` is a child of mmpretrain's, because mmengine has none.
"""

from collections.abc import Mapping

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry
from mmpretrain.registry import BATCH_AUGMENTS as MMPRETRAIN_BATCH_AUGMENTS

# Who uses the registries may also inherit from configs by the prefix.
from smmix_mm import configs  # noqa: F401

SCOPE = 'smmix_mm'

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=['smmix_mm.models', 'smmix_mm.losses', 'smmix_mm.mixing'],
)
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope=SCOPE, locations=['smmix_mm.datasets'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=['smmix_mm.datasets'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope=SCOPE, locations=['smmix_mm.evaluation'])
BATCH_AUGMENTS = Registry('batch augment', parent=MMPRETRAIN_BATCH_AUGMENTS, scope=SCOPE, locations=['smmix_mm.mixing'])
ADAPTERS = Registry('adapter', scope=SCOPE, locations=['smmix_mm.adapters'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['smmix_mm.resume', 'smmix_mm.engine'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope=SCOPE, locations=['smmix_mm.resume', 'smmix_mm.engine'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=['smmix_mm.engine']
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, scope=SCOPE, locations=['smmix_mm.engine']
)
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope=SCOPE, locations=['smmix_mm.engine'])
FUNCTIONS = Registry('function', parent=MMENGINE_FUNCTIONS, scope=SCOPE, locations=['smmix_mm.engine'])


def find_scope_and_name(settings: Mapping) -> tuple[str, str]:
    """The package of a ``type``, empty if it is not named, and the name of the type, empty if there is none."""
    kind = settings.get('type') or ''
    # Python-style configs hold the class itself.
    path = kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__name__}'
    return path.split('.')[0] if '.' in path else '', path.rpartition('.')[2]
