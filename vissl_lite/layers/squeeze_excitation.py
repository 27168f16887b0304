"""Squeeze and excitation."""

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """x * sigmoid(W2 relu(W1 mean_HW(x))) per channel (Hu et al. 2018, arXiv 1709.01507).

    Args:
        channels: C of the map x [N, C, H, W].
        squeezed: channels between the two 1x1 convolutions, which have biases.
    """

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()  # in place it would change what selective checkpointing keeps
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pooled_NC11 = x_NCHW.mean((2, 3), keepdim=True)
        return x_NCHW * self.fc2(self.relu(self.fc1(pooled_NC11))).sigmoid()
