"""Names of published weights, for `vissl_lite.load("swav_resnet50")` and `init=swav_resnet50`."""

from __future__ import annotations

_FB = "https://dl.fbaipublicfiles.com/"
_SWAV_IG = _FB + "vissl/model_zoo/swav_ig1b_"
_WSL = "https://download.pytorch.org/models/ig_resnext101_32x"

PUBLISHED = {
    "swav_resnet50": f"{_FB}deepcluster/swav_800ep_pretrain.pth.tar",
    "mocov2_resnet50": f"{_FB}moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
    "mocov3_resnet50": f"{_FB}moco-v3/r-50-1000ep/r-50-1000ep.pth.tar",
    "mocov3_vitb16": f"{_FB}moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
    "dino_resnet50": f"{_FB}dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
    "dino_vits16": f"{_FB}dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    "dino_vits8": f"{_FB}dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth",
    "dino_vitb16": f"{_FB}dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    "dino_vitb8": f"{_FB}dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
    "barlowtwins_resnet50": (
        f"{_FB}barlowtwins/ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50.pth"
    ),
    "vicreg_resnet50": f"{_FB}vicreg/resnet50.pth",
    "vicreg_resnet50w2": f"{_FB}vicreg/resnet50x2.pth",
    "vicreg_resnet200w2": f"{_FB}vicreg/resnet200x2.pth",
    "seer_regnet_y_32gf": (
        f"{_FB}vissl/model_zoo/seer_regnet32d/seer_regnet32gf_model_iteration244000.torch"
    ),
    "seer_regnet_y_64gf": (
        f"{_FB}vissl/model_zoo/seer_regnet64/seer_regnet64gf_model_final_checkpoint_phase0.torch"
    ),
    "seer_regnet_y_128gf": (
        f"{_SWAV_IG}regnet128Gf_cnstant_bs32_node16_sinkhorn10_proto16k_syncBN64_warmup8k/"
        "model_final_checkpoint_phase0.torch"
    ),
    "seer_regnet_y_256gf": (
        f"{_SWAV_IG}cosine_rg256gf_noBNhead_wd1e5_fairstore_bs16_node64_sinkhorn10_proto16k_"
        "apex_syncBN64_warmup8k/model_final_checkpoint_phase0.torch"
    ),
    "seer_regnet_y_10b": f"{_FB}vissl/model_zoo/seer_regnet10B/model_iteration124500_conso.torch",
    **{
        f"swag_regnet_y_{size}": f"{_FB}SWAG/regnety_{size}.torch"
        for size in ("16gf", "32gf", "128gf")
    },
    "wsl_resnext101_32x8d": f"{_WSL}8-c38310e5.pth",
    "wsl_resnext101_32x16d": f"{_WSL}16-c6f796b0.pth",
    "wsl_resnext101_32x32d": f"{_WSL}32-e4b90b00.pth",
    "wsl_resnext101_32x48d": f"{_WSL}48-3e41cc8a.pth",
}
