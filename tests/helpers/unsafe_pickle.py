"""What a checkpoint from a stranger may hold."""

import os
from pathlib import Path


class TouchOnLoad:
    """Makes a file when it is unpickled by a reader that executes what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class ShellOnLoad(TouchOnLoad):
    """By a command of the shell."""

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


class EvalOnLoad(TouchOnLoad):
    """By an expression."""

    def __reduce__(self):
        return eval, (f'open({str(self.path)!r}, "w").close()',)


class StateOnLoad(TouchOnLoad):
    """By the state of an object, which pickle hands to a function of the file's choice."""

    def __reduce__(self):
        return list, (), None, iter([EvalOnLoad(self.path)])


HOSTILE = (TouchOnLoad, ShellOnLoad, EvalOnLoad, StateOnLoad)
