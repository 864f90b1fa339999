"""Configs that are written down as they are."""

from yapf.yapflib import yapf_api


def leave_unformatted() -> None:
    """Takes yapf out of ``mmengine.Config.pretty_text``.

    mmengine writes the config into every checkpoint, and formats it each time: two thirds of the time of a short run.
    """
    yapf_api.FormatCode = lambda text, **_: (text, True)
