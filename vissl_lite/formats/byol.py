"""BYOL as PyTorch code saves it: the online encoder.

online_network.encoder.0.weight               yaox12/BYOL-PyTorch
online_network_state_dict.encoder.0.weight    sthalles/PyTorch-BYOL
online_encoder.net.conv1.weight               lucidrains/byol-pytorch
backbone.conv1.weight                         solo-learn, lightly (any method with a teacher)
"""

from vissl_lite.formats.format import WRAPPED, Format

FORMAT = Format(
    "BYOL",
    trunk=(
        rf"{WRAPPED}online_network(?:_state_dict)?\.(?:module\.)?encoder\.",
        rf"{WRAPPED}online_encoder\.net\.",
        rf"{WRAPPED}backbone\.",
    ),
    mark=rf"{WRAPPED}(?:target_(?:network|encoder)|momentum_backbone|backbone_momentum)",
    ignored={
        rf"{WRAPPED}(?:target_|momentum_|\w+_momentum\.)": "momentum encoder",
        rf"{WRAPPED}net\.": "the online encoder once more",
        rf"{WRAPPED}online_": "head",
        r"predictor_network_state_dict\.": "head",
    },
)
