import pytest
import timm
import torch
import torchvision
from torch import nn

from vissl_lite.errors import ConfigError
from vissl_lite.trunks.vit import ViT

# With a classifier of 1000 classes: timm (tiny, small), torchvision (the others).
PUBLISHED = {
    ("tiny", 16): 5_717_416,
    ("small", 16): 22_050_664,
    ("base", 16): 86_567_656,
    ("large", 16): 304_326_632,
    ("huge", 14): 632_045_800,
}


@pytest.mark.parametrize(("size", "patch_size"), PUBLISHED)
def test_parameters(size, patch_size):
    with torch.device("meta"):
        trunk = ViT(size, patch_size)
    parameters = sum(p.numel() for p in trunk.parameters())
    assert parameters + 1000 * (trunk.widths["cls"] + 1) == PUBLISHED[size, patch_size]


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_parameters_with_patches_of_14(size):
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{size}_patch14_dinov2", num_classes=0, img_size=224)
        ours = ViT(size, 14, layer_scale=1e-5)
    count, expected = (sum(p.numel() for p in vit.parameters()) for vit in (ours, theirs))
    assert count == expected


@pytest.mark.parametrize("side", [224, 96])
def test_is_timm_with_its_weights_at_any_size(side):
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, dynamic_img_size=True)
    ours = ViT("small", 16)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, side, side)
    out = ours(x, ("cls", "patches"))
    tokens = theirs.forward_features(x)
    torch.testing.assert_close(out["cls"], tokens[:, 0], rtol=1e-5, atol=1e-5)
    patches = out["patches"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, tokens[:, 1:], rtol=1e-5, atol=1e-5)


def test_heads_are_those_of_timm():
    keys = {"img_size": 32, "num_classes": 0, "num_heads": 12}
    theirs, ours = timm.create_model("vit_tiny_patch16_224", **keys), ViT("tiny", 16, 32, heads=12)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x)["cls"], theirs(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="trunk vit: 5 heads do not divide 192 channels"):
        ViT("tiny", heads=5)


def test_layer_scale_is_that_of_timm():
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=1e-5)
    ours = ViT("tiny", layer_scale=1e-5)
    assert torch.equal(ours.blocks[3].ls1.gamma, theirs.blocks[3].ls1.gamma)
    ours.load_state_dict(theirs.state_dict(), strict=True)


RENAMED = {
    "class_token": "cls_token",
    "conv_proj.": "patch_embed.proj.",
    "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.",
    "encoder.ln.": "norm.",
    ".ln_": ".norm",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj.": "attn.proj.",
    "mlp.0.": "mlp.fc1.",
    "mlp.3.": "mlp.fc2.",
}


def _renamed(name):
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def test_is_torchvision_with_its_weights():
    theirs = torchvision.models.vit_b_16()
    theirs.heads = nn.Identity()
    ours = ViT("base", 16)
    ours.load_state_dict({_renamed(k): v for k, v in theirs.state_dict().items()}, strict=True)
    x = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(ours(x)["cls"], theirs(x), rtol=1e-5, atol=1e-5)


def test_maps_are_laid_out_as_the_image():
    trunk = ViT("tiny", 8, image_size=32).eval()
    for block in trunk.blocks:  # leaves each token to itself
        nn.init.zeros_(block.attn.proj.weight)
    x = torch.zeros(1, 3, 24, 40)
    changed = x.clone()
    changed[:, :, 16:24, 8:16] = 1
    before, after = (trunk(i, ("block12",))["block12"] for i in (x, changed))
    assert before.shape == (1, 192, 3, 5)
    assert (before != after).any(1)[0].nonzero().tolist() == [[2, 1]]


def test_drop_path_grows_with_depth():
    trunk = ViT("tiny", drop_path=0.22)
    rates = [block.drop_path.rate for block in trunk.blocks]
    assert rates == pytest.approx([0.02 * i for i in range(12)])


def test_image_that_does_not_divide():
    with pytest.raises(ConfigError, match="96x98 pixels does not divide into patches of 14"):
        ViT("tiny", 14)(torch.zeros(1, 3, 96, 98))
