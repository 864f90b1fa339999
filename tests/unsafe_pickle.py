"""What a checkpoint from a stranger may hold."""

from pathlib import Path


class TouchOnLoad:
    """Makes a file when it is unpickled by a reader that executes what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
