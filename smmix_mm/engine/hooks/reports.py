"""What the hooks that guard a run write and name."""

import logging

from mmengine.dist import get_rank, is_main_process
from mmengine.runner import EpochBasedTrainLoop, Runner


def warn(runner: Runner, message: str) -> None:
    """Logs a warning of this rank, whichever it is.

    Args:
        runner (Runner): With the log.
        message (str): What happened.
    """
    if is_main_process():
        runner.logger.warning(message)
    else:
        # mmengine shows of the other ranks nothing below an error.
        runner.logger.log(logging.ERROR, f'rank {get_rank()}: {message}')


def name_step(runner: Runner) -> str:
    """Epoch, where there are any, and iteration of the latest step, counted from 1 as in the log.

    Args:
        runner (Runner): While it trains.
    """
    # The runner's own counters move on between a step and the checkpoint after it.
    hub = runner.message_hub
    iteration = f'iteration {hub.get_info("iter") + 1}'
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'epoch {hub.get_info("epoch") + 1}, {iteration}'
    return iteration
