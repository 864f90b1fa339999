"""Compilation of the backbone."""

from typing import Any

from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from smmix_mm.compat import allow_ddp, allow_graphs, make_traceable
from smmix_mm.registry import HOOKS
from smmix_mm.unwrapping import list_models

# Kinds of passes (training, motivation, evaluation, teacher) times batch sizes times image sizes.
MAX_GRAPHS = 64


@HOOKS.register_module()
class CompileBackbone(Hook):
    """Compiles the backbone of the model under training, and that of its teacher.

    mmengine's own switch ``compile`` compiles the whole training step, which mixing breaks into many graphs because it
    draws on the host. The backbone is a single graph for every method and region size: one for training, one for the
    motivation, one for evaluation, and as many again for a smaller last batch. The names in ``state_dict`` stay the
    same. Copies of the model (averaged weights and AutoMix's momentum model) are not compiled.

    Args:
        fullgraph (bool): Whether it is an error if the backbone is not a single graph. Defaults to True.
        dynamic (bool, optional): Whether graphs are compiled for all sizes instead of those met. Defaults to False.
        teacher (bool): Whether the teacher's backbone is compiled too, if there is one. Defaults to True.
        **options: Options of ``torch.compile``, such as ``backend`` and ``mode``.

    Raises:
        ValueError: Before training, if the model has no backbone, or if FSDP has sharded it.
    """

    def __init__(
        self, fullgraph: bool = True, dynamic: bool | None = False, teacher: bool = True, **options: Any
    ) -> None:
        self.options = dict(fullgraph=fullgraph, dynamic=dynamic, **options)
        self.teacher = teacher

    def before_train(self, runner: Runner) -> None:
        for owner in list_models(runner.model)[: 2 if self.teacher else 1]:
            compile_backbone(owner, **self.options)
        print_log('The backbone is compiled in its first forward passes, which are slow', 'current')


def compile_backbone(model: nn.Module, **options: Any) -> None:
    """Compiles a model's backbone in place, in its first forward passes.

    Args:
        model (nn.Module): A model with a ``backbone``.
        **options: Options of ``torch.compile``.

    Raises:
        ValueError: If the model has no backbone, or if FSDP has sharded it.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(f'CompileBackbone needs a model with a backbone, but {type(model).__name__} has none')
    for name, part in backbone.named_modules():
        if isinstance(part, FullyShardedDataParallel):
            raise ValueError(
                f'CompileBackbone needs a backbone that is not sharded, but FSDP has wrapped {name or "all"} of it, '
                f'so that torch.compile cannot build a single graph; use only one of the two'
            )
        if isinstance(part, DropPath):
            # In stock backbones this is a NumPy scalar, which breaks the graph.
            part.drop_prob = float(part.drop_prob)
    make_traceable(backbone)
    allow_graphs(MAX_GRAPHS)
    allow_ddp()
    # In place, since a wrapper would change the names of the parameters.
    backbone.compile(**options)
