"""One HTML page about the runs in some folders."""

from .page import save_report

__all__ = ['save_report']
