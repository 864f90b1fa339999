from .mixing_classifier import MixingClassifier

__all__ = ['MixingClassifier']
