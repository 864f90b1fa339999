"""What happens at named points of a run."""

from .save_pictures import SavePictures

__all__ = ['SavePictures']
