"""The two-layer perceptron of a transformer's block."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Two linear layers with a GELU between them, under the names of the official PVT and CaiT.

    Args:
        dims (int): Channels of the tokens.
        hidden_dims (int): Channels between the layers.
        drop_rate (float): Dropout after each layer, in [0, 1). Defaults to 0.
    """

    def __init__(self, dims: int, hidden_dims: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, hidden_dims)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dims)`` to the same shape."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
