"""The hash against scipy's DCT, and what it does not see."""

import numpy as np
import torch
from PIL import Image
from scipy.fft import dctn

from vissl_lite.extract.perceptual_hash import PerceptualHash
from vissl_lite.extract.subject import Subject


def test_equals_scipys_cosine_transform():
    x_NCHW = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    found = PerceptualHash()(x_NCHW)["hash"].numpy()
    grey = (x_NCHW.double().numpy() * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    small = grey.reshape(6, 32, 2, 32, 2).mean((2, 4))
    low = np.stack([dctn(image, norm=None)[:8, :8].reshape(-1)[1:] for image in small])
    # scipy doubles every wave, which the sign does not see
    expected = np.where(low > np.sort(low, axis=1)[:, 31:32], 1, -1)
    assert (found == expected).all()
    assert ((found == 1).sum(1) == 31).all()


def test_copies_stay_alike(photographs_tar, tmp_path):
    """Half the size, quality 30: at most 6 of 63 bits differ; of other photographs 10 or more."""
    import tarfile

    subject = Subject.load("perceptual_hash")
    with tarfile.open(photographs_tar) as tar:
        files = [m for m in tar.getmembers() if m.isfile() and m.name.lower().endswith("jpeg")][:12]
        images = [Image.open(tar.extractfile(m)).convert("RGB") for m in files]
    hashes = []
    for i, image in enumerate(images):
        image.reduce(2).save(tmp_path / f"{i}.jpg", quality=30)
        hashes.append([of(subject, image), of(subject, Image.open(tmp_path / f"{i}.jpg"))])
    bits = np.array(hashes)
    distance = (bits[:, None, 0] != bits[None, :, 1]).sum(-1)
    assert distance.diagonal().max() <= 6
    assert distance[~np.eye(len(images), dtype=bool)].min() >= 10


def of(subject, image):
    pixels = np.zeros((1, 1, 64, 64, 3), np.uint8)
    draws = subject.views.draw(0, 0, np.zeros(1, np.int64))
    subject.views.write(image, "", draws, 0, [pixels])
    return subject.model.layer_features(torch.from_numpy(pixels[0]), ["hash"])["hash"][0].numpy()
