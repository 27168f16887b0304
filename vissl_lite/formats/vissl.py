"""VISSL: SwAV, SimCLR and other ResNets, SEER's RegNets."""

from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD
from vissl_lite.formats.format import Format, Pixels

_MODEL = r"(?:classy_state_dict\.base_model\.model\.)?"

# model_state_dict: a checkpoint that its own scripts have consolidated
FORMAT = Format(
    "VISSL",
    trunk=(rf"{_MODEL}(?:model_state_dict\.)?(?:trunk\.)?_feature_blocks\.",),
    mark=r".*_feature_blocks\.",
    ignored={
        rf"{_MODEL}heads\.": "head",
        r"classy_state_dict\.optimizer\.": "optimizer",
        r"loss\.": "state of the loss (queues, teachers)",
        r"classy_state_dict\.(?!base_model\.model\.)": "training state",
    },
    heads={  # of SwAV: projection and prototypes
        rf"{_MODEL}heads\.0\.projection_head\.": "heads.0.",
        rf"{_MODEL}heads\.0\.prototypes(\d+)\.": r"heads.1.sets.\1.",
    },
    pixels=Pixels(IMAGENET_MEAN, IMAGENET_STD),  # trained at 224, fine-tuned at 384
)
