"""Messages of the hooks that monitor a run."""

import logging

from mmengine.dist import get_rank, is_main_process
from mmengine.runner import EpochBasedTrainLoop, Runner


def warn(runner: Runner, message: str) -> None:
    """Logs a warning from any rank.

    Args:
        runner (Runner): Runner whose log is used.
        message (str): The warning.
    """
    if is_main_process():
        runner.logger.warning(message)
    else:
        # On other ranks mmengine shows only errors.
        runner.logger.log(logging.ERROR, f'rank {get_rank()}: {message}')


def name_step(runner: Runner) -> str:
    """Names the latest step by iteration and, if the loop has epochs, by epoch, counted from 1 as in the log.

    Args:
        runner (Runner): A runner that is training.
    """
    # The runner's own counters move on between a step and the checkpoint after it.
    hub = runner.message_hub
    iteration = f'iteration {hub.get_info("iter") + 1}'
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'epoch {hub.get_info("epoch") + 1}, {iteration}'
    return iteration
