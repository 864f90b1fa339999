"""Losses of a mixed batch, and of a segmentor's pixels."""

from .class_weighted_cross_entropy import ClassWeightedCrossEntropy
from .smmix_loss import SMMixLoss

__all__ = ['ClassWeightedCrossEntropy', 'SMMixLoss']
