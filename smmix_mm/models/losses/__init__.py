from .smmix_loss import SMMixLoss

__all__ = ['SMMixLoss']
