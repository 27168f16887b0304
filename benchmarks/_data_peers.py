"""Other libraries' pipelines for `data_views.py`, each from all images to one batch of floats.

Shape suffixes: V crops of one view group, B images, C, H, W of a crop.
"""

import importlib
import io
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms as v1
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Group = dict[str, Any]  # count, size, transforms: as in configs/augment


def installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def versions() -> list[str]:
    names = ("albumentations", "kornia", "cv2", "PIL", "simplejpeg")
    found = [(name, installed(name)) for name in names]
    return [f"{n} {m.__version__}" if m else f"{n} is not installed, left out" for n, m in found]


def settings(group: Group) -> dict[str, Group]:
    """The transforms of a group by name; those that are missing have p = 0."""
    given = {t["name"]: t for t in group["transforms"]}
    return {"gaussian_blur": {"p": 0.0, "sigma": [0.1, 2.0]}, **given}


class PillowBlur:
    """VISSL's ImgPilGaussianBlur."""

    def __init__(self, p: float, sigma: Sequence[float]):
        self.p, self.sigma = p, sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() >= self.p:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def strengths(jitter: Group) -> list[float]:
    return [jitter[key] for key in ("brightness", "contrast", "saturation", "hue")]


def on_pil(group: Group, t: Any, blur: Any, end: list[Any]) -> Any:
    """The pipeline of VISSL with the transforms of torchvision's module `t`."""
    s = settings(group)
    return t.Compose(
        [
            t.RandomResizedCrop(group["size"], s["random_resized_crop"]["scale"]),
            t.RandomHorizontalFlip(s["random_horizontal_flip"]["p"]),
            t.RandomApply([t.ColorJitter(*strengths(s["color_jitter"]))], s["color_jitter"]["p"]),
            t.RandomGrayscale(s["random_grayscale"]["p"]),
            *([blur(s["gaussian_blur"])] if s["gaussian_blur"]["p"] else []),
            *end,
        ]
    )


def pillow_blur(s: Group) -> Any:
    return PillowBlur(s["p"], s["sigma"])


def v2_blur(s: Group) -> Any:
    return v2.RandomApply([v2.GaussianBlur(23, tuple(s["sigma"]))], s["p"])


def torchvision_v1(group: Group) -> Any:
    return on_pil(group, v1, pillow_blur, [v1.ToTensor(), v1.Normalize(MEAN, STD)])


def torchvision_v2(group: Group, on_tensors: bool) -> Any:
    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return on_pil(group, v2, v2_blur if on_tensors else pillow_blur, end)


def albumentation(group: Group) -> Any:
    a, s = importlib.import_module("albumentations"), settings(group)
    jitter, blur = s["color_jitter"], s["gaussian_blur"]
    chain = a.Compose(
        [
            a.RandomResizedCrop((group["size"],) * 2, tuple(s["random_resized_crop"]["scale"])),
            a.HorizontalFlip(p=s["random_horizontal_flip"]["p"]),
            a.ColorJitter(*strengths(jitter), p=jitter["p"]),
            a.ToGray(p=s["random_grayscale"]["p"]),
            *([a.GaussianBlur((0, 0), tuple(blur["sigma"]), p=blur["p"])] if blur["p"] else []),
            a.Normalize(MEAN, STD),
        ]
    )
    return lambda pixels: torch.from_numpy(chain(image=pixels)["image"]).permute(2, 0, 1)


def pil_of(image: Any) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    return Image.open(io.BytesIO(image)).convert("RGB")


def array_of(image: Any) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    cv2 = importlib.import_module("cv2")
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)


def tensor_of(image: Any) -> torch.Tensor:
    return torch.from_numpy(array_of(image)).permute(2, 0, 1)


def per_image(
    images: Sequence, groups: Sequence[Group], make: Callable, decode: Callable
) -> Callable:
    """Decoded once, then every crop by itself; the crops of a group are stacked."""
    chains = [(make(group), group["count"]) for group in groups]

    def batch() -> list[torch.Tensor]:
        crops: list[list[torch.Tensor]] = [[] for _ in chains]
        for image in images:
            decoded = decode(image)
            for (chain, count), mine in zip(chains, crops):
                mine += [chain(decoded) for _ in range(count)]
        return [torch.stack(mine) for mine in crops]

    return batch


def kornia_chains(groups: Sequence[Group]) -> list[Callable]:
    """Everything but the crops, for each group, on batches of floats in [0, 1]."""
    k, chains = importlib.import_module("kornia.augmentation"), []
    for group in groups:
        s = settings(group)
        blur, kernel = s["gaussian_blur"], (23, 23)
        blurs = [k.RandomGaussianBlur(kernel, tuple(blur["sigma"]), p=blur["p"])]
        chains.append(
            k.AugmentationSequential(
                k.RandomHorizontalFlip(p=0.5),
                k.ColorJitter(*strengths(s["color_jitter"]), p=s["color_jitter"]["p"]),
                k.RandomGrayscale(p=s["random_grayscale"]["p"]),
                *(blurs if blur["p"] else []),
                k.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
            )
        )
    return chains


def kornia_batch(images: Sequence, groups: Sequence[Group]) -> Callable:
    """Crops by OpenCV one by one, the rest by kornia on the whole batch, on the CPU."""
    chains, cv2 = kornia_chains(groups), importlib.import_module("cv2")

    def batch() -> list[torch.Tensor]:
        crops: list[list[np.ndarray]] = [[] for _ in groups]
        for image in images:
            pixels = array_of(image)
            for group, mine in zip(groups, crops):
                scale = settings(group)["random_resized_crop"]["scale"]
                for _ in range(group["count"]):
                    shape = torch.empty(3, *pixels.shape[:2])
                    top, left, h, w = v1.RandomResizedCrop.get_params(shape, scale, [3 / 4, 4 / 3])
                    box = pixels[top : top + h, left : left + w]
                    mine.append(cv2.resize(box, (group["size"],) * 2))
        stacked = [torch.from_numpy(np.stack(mine)).permute(0, 3, 1, 2) / 255 for mine in crops]
        return [chain(x) for chain, x in zip(chains, stacked)]

    return batch


def for_images(images: Sequence, groups: Sequence[Group]) -> dict[str, Callable]:
    """Name -> makes the batch."""
    calls = {
        "torchvision v1 on PIL": per_image(images, groups, torchvision_v1, pil_of),
        "torchvision v2 on PIL": per_image(
            images, groups, lambda g: torchvision_v2(g, False), pil_of
        ),
    }
    if installed("cv2"):
        calls["torchvision v2 on tensors"] = per_image(
            images, groups, lambda g: torchvision_v2(g, True), tensor_of
        )
    if installed("albumentations") and installed("cv2"):
        calls["albumentations"] = per_image(images, groups, albumentation, array_of)
    if installed("kornia") and installed("cv2"):
        calls["kornia on the CPU, crops by OpenCV"] = kornia_batch(images, groups)
    return calls
