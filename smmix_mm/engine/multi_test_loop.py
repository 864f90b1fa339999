"""A test loop over several datasets."""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner import Runner, TestLoop
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader

from smmix_mm.registry import LOOPS


@LOOPS.register_module()
class MultiTestLoop(BaseLoop):
    """Tests one model on several datasets, one after another, each by mmengine's ``TestLoop``.

    If the data of one is at fault, the others are tested all the same. Use it in one process only: the others would
    wait for one that gives up.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Settings of the dataloader. Its dataset is replaced.
        evaluator (dict | list[dict]): Evaluator of the datasets that name none.
        sets (Mapping[str, Mapping]): The ``dataset`` and, if it is another, the ``evaluator``, by name.
        fp16 (bool): Whether to test in automatic mixed precision. Defaults to False.

    Attributes:
        sizes (dict[str, int]): The number of images of each dataset, after :meth:`run`.
        failures (dict[str, str]): Why datasets were not tested, after :meth:`run`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: dict | list[dict] | None,
        sets: Mapping[str, Mapping[str, Any]],
        fp16: bool = False,
    ) -> None:
        # BaseLoop would build the dataloader, whose own dataset need not be there.
        self._runner = runner
        self._settings = dict(dataloader=dataloader, evaluator=evaluator)
        self._sets = sets
        self._fp16 = fp16
        self._loop: TestLoop | None = None
        self.sizes: dict[str, int] = {}
        self.failures: dict[str, str] = {}

    @property
    def dataloader(self) -> DataLoader:
        """That of the dataset under test, which hooks ask for."""
        return self._loop.dataloader

    @property
    def evaluator(self) -> Evaluator:
        """That of the dataset under test."""
        return self._loop.evaluator

    def run(self) -> dict[str, dict[str, float]]:
        """Tests on all datasets.

        Returns:
            dict[str, dict[str, float]]: The metrics of each, by name.
        """
        metrics = {}
        for name, parts in self._sets.items():
            print_log(f'Testing on {name}', logger='current')
            try:
                self._loop = self._build(**parts)
                metrics[name] = self._loop.run()
            # Datasets, and transforms in workers, raise errors of any type.
            except Exception as error:
                self.failures[name] = f'{type(error).__name__}: {error}'
                print_log(f'{name} is left out: {self.failures[name]}', logger='current', level=logging.ERROR)
            else:
                self.sizes[name] = len(self.dataloader.dataset)
        return metrics

    def _build(self, dataset: Mapping[str, Any], evaluator: Mapping | Sequence | None = None) -> TestLoop:
        dataloader = {**self._settings['dataloader'], 'dataset': dataset}
        evaluator = evaluator or self._settings['evaluator']
        return TestLoop(self._runner, copy.deepcopy(dataloader), copy.deepcopy(evaluator), self._fp16)
