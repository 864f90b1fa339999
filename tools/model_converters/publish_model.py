"""Publishes a checkpoint by mmpretrain's own tool, for classifiers, detectors and segmentors.

It keeps the weights, or their moving average, and the meta data, and adds a hash to the name of the file. The
checkpoint is read without executing what is pickled in it. The tool alone fails from torch 2.6 on, because mmengine's
checkpoints hold more than weights.
"""

import runpy
from pathlib import Path
from typing import Any

import mmpretrain
import torch

from smmix_mm.checkpoint import read_checkpoint, without_foreign

TOOL = Path(mmpretrain.__file__).parent / '.mim/tools/model_converters/publish_model.py'


def main() -> None:
    stock = torch.load

    def load(path: str, **_: Any) -> dict[str, Any]:
        # Reading uses torch's own.
        torch.load = stock
        return without_foreign(read_checkpoint(path), path)

    torch.load = load
    runpy.run_path(str(TOOL), run_name='__main__')


if __name__ == '__main__':
    main()
