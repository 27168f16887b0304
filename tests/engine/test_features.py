"""Features: every labelled image once, in order, float32, and the model left as it was."""

import contextlib
from unittest.mock import patch

import numpy as np
import pytest
import torch
from data.some_sources import Numbers
from engine.some_digits import CPU, FP32, SomeDigits, small_model
from torch.nn import functional as F

from vissl_lite import ConfigError
from vissl_lite.data.views import Views
from vissl_lite.engine import features
from vissl_lite.engine.features import evaluating, exchange, extract
from vissl_lite.engine.numerics import Numerics
from vissl_lite.errors import WorkerDied
from vissl_lite.parallel.mesh import make_mesh
from vissl_lite.parallel.wrap import shard


def views(transforms=()):
    return Views.build([{"count": 1, "size": 8, "transforms": list(transforms)}])


def extracted(model, source, layers=None, **settings):
    settings = {"batch_size": 7, "numerics": FP32, **settings}
    return extract(model, source, views(), layers, device=CPU, **settings)


def naive(model, source, layer):
    """One image at a time, in double precision, by the model's own forward pass."""
    model = model.double().eval()
    rows = []
    for i in range(len(source)):
        grey = torch.from_numpy(source[i].image).double() / 255
        x = grey.expand(1, 3, 8, 8)
        x = (x - model.mean / 255) / (model.std / 255)
        with torch.no_grad():
            if layer in ("embedding", "logits"):
                z = model.heads[0](model.trunk(x, ("res5",))["res5"].mean((2, 3)))
                rows.append(z if layer == "embedding" else model.heads[1](z))
            else:
                rows.append(F.adaptive_avg_pool2d(model.trunk(x, (layer,))[layer], 1).flatten(1))
    return torch.cat(rows)


@pytest.mark.parametrize("layer", ["res5", "res3", "embedding", "logits"])
def test_equals_one_image_at_a_time(layer):
    source = SomeDigits(20)
    found = extracted(small_model(), source, [layer])
    expected = naive(small_model(), source, layer)
    assert found.features[layer].dtype == torch.float32
    assert found.features[layer].device == CPU
    torch.testing.assert_close(found.features[layer].double(), expected, rtol=1e-4, atol=1e-5)
    assert found.label_N.tolist() == [source[i].label for i in range(20)]
    assert found.label_N.dtype == torch.int64


def test_several_layers_come_in_the_order_asked():
    layers = ["logits", "embedding", "res5", "res2"]
    found = extracted(small_model(), SomeDigits(9), layers)
    assert list(found.features) == layers
    assert [x.shape for x in found.features.values()] == [(9, 3), (9, 6), (9, 64), (9, 8)]
    for layer in layers:
        alone = extracted(small_model(), SomeDigits(9), [layer])
        torch.testing.assert_close(alone.features[layer], found.features[layer])


def test_the_default_is_the_layer_that_feeds_the_heads():
    assert list(extracted(small_model(), SomeDigits(3)).features) == ["res5"]


def test_an_unknown_layer_is_an_error():
    with pytest.raises(ConfigError, match=r"no layer 'res6'; did you mean 'res\d'\? it has conv1,"):
        extracted(small_model(), SomeDigits(3), ["res6"])


def test_broken_and_unlabelled_images_are_left_out():
    model, whole = small_model(), SomeDigits(20)
    found = extracted(model, SomeDigits(20, broken=(0, 8), unlabelled=(3, 19)))
    kept = [i for i in range(20) if i not in (0, 3, 8, 19)]
    assert found.broken == ["n0", "n8"]
    assert found.label_N.tolist() == [whole[i].label for i in kept]
    torch.testing.assert_close(
        found.features["res5"], extracted(model, whole).features["res5"][kept], rtol=1e-5, atol=1e-6
    )


def test_not_one_readable_image():
    found = extracted(small_model(), SomeDigits(9, broken=range(9)))
    assert found.features["res5"].shape == (0, 64)
    assert len(found.broken) == 9


def test_the_model_and_the_random_state_are_left_alone():
    model = small_model().train()
    model.trunk.eval()  # as when it is frozen
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    extracted(model, SomeDigits(20), ["res5", "embedding"])
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    model([torch.zeros(1, 4, 8, 8, 3, dtype=torch.uint8)]).embedding.sum().backward()
    assert all(p.grad is not None for p in model.heads[0].parameters())


def test_cudnn_is_tuned_for_whole_batches_alone():
    """A training may have images of their shape; of the others there may be many."""
    model, seen = small_model(), []
    model.trunk.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    extracted(model, SomeDigits(20), batch_size=8)
    assert seen == [True, True, False]
    assert not torch.backends.cudnn.benchmark


def test_modes_come_back_after_an_error():
    model = small_model().train()
    with contextlib.suppress(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert all(module.training for module in model.modules())


def test_bf16_features_are_close_and_float32():
    model, source = small_model(), SomeDigits(20)
    found = extracted(model, source, numerics=Numerics("bf16", "channels_last", ""))
    reference = extracted(model, source).features["res5"]
    assert found.features["res5"].dtype == torch.float32
    cosine = F.cosine_similarity(found.features["res5"], reference)
    assert 0.99 < cosine.min() < 1


def test_random_transforms_repeat_themselves():
    settings = {"device": CPU, "numerics": FP32}
    crops = views(["random_resized_crop"])
    one, two = (extract(small_model(), SomeDigits(9), crops, **settings) for _ in range(2))
    assert torch.equal(one.features["res5"], two.features["res5"])


def test_reading_in_other_processes_changes_nothing():
    source, model = SomeDigits(9, broken=(2,)), small_model()
    alone, worked = (extracted(model, source, workers=n) for n in (0, 2))
    assert torch.equal(alone.features["res5"], worked.features["res5"])
    assert (alone.broken, alone.label_N.tolist()) == (worked.broken, worked.label_N.tolist())


@pytest.mark.parametrize(
    ("harm", "error", "text"),
    [
        ("kill", WorkerDied, r"^data worker 0 \(.*was killed by SIGKILL .*, at image 5, number-5$"),
        ("refuse", ConfigError, r"^data\.source: no more numbers; count again$"),
    ],
)
def test_what_ends_a_worker_is_said_in_one_sentence(harm, error, text):
    with pytest.raises(error, match=text):
        extracted(small_model(), Numbers(24, harm), workers=1)


def extract_on_rank(rank, world, size, broken, unlabelled):
    digits = SomeDigits(size, broken, unlabelled)
    with patch.object(features, "EXCHANGED_ROWS", 3):
        found = extracted(small_model(), digits, ["res5", "embedding"])
    return (
        {name: x.numpy() for name, x in found.features.items()},
        found.label_N.tolist(),
        found.broken,
    )


@pytest.mark.parametrize(
    ("world", "size", "broken", "unlabelled"), [(2, 21, (0, 7), (4, 5, 20)), (3, 2, (), ())]
)
def test_the_same_on_several_processes(world, size, broken, unlabelled, ranks):
    whole, labels, names = extract_on_rank(0, 1, size, broken, unlabelled)
    answers = ranks(world)(extract_on_rank, size, broken, unlabelled)
    for found, rank_labels, rank_names in answers:
        assert (rank_labels, rank_names) == (labels, names)
        for layer in whole:
            np.testing.assert_allclose(found[layer], whole[layer], rtol=1e-5, atol=1e-6)


def exchange_on_rank(rank, world, size, block):
    x = torch.full((size,), -1)
    x[rank::world] = torch.arange(size)[rank::world]
    with patch.object(features, "EXCHANGED_ROWS", block):
        return exchange(x).tolist()


def test_exchange_puts_every_row_in_its_place(ranks):
    for size, block in [(11, 2), (12, 4), (1, 4), (0, 4)]:
        assert exchange_on_rank(0, 1, size, block) == list(range(size))
    assert ranks(3)(exchange_on_rank, 11, 2) == [list(range(11))] * 3


def sharded_features(rank, world, images):
    """Of a model whose weights are spread over the processes."""
    model = small_model()
    model.heads[-1].shard_classes = True
    shard(model, make_mesh("zero3", None, CPU))
    layers = ["res5", "embedding", "logits"]
    found = extracted(model, SomeDigits(images), layers, batch_size=2)
    names = [type(p).__name__ for p in model.parameters()]
    return found, names


def test_of_shards_when_one_process_has_a_batch_less(ranks):
    """Its three classes too: the second process has one of them."""
    expected = extracted(small_model(), SomeDigits(5), ["res5", "embedding", "logits"])
    for found, names in ranks(2)(sharded_features, 5):
        torch.testing.assert_close(found.features, expected.features)
        assert set(names) == {"DTensor"}  # nothing stays gathered
