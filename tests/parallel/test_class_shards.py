"""Classes spread over 2 to 4 gloo processes against one process with dense targets, in float64."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader as Reader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter as Writer
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from vissl_lite.data.batch import Batch, Tags
from vissl_lite.engine.numerics import _scored
from vissl_lite.heads.linear import Linear
from vissl_lite.losses.binary_cross_entropy import BinaryCrossEntropy
from vissl_lite.losses.cross_entropy import CrossEntropy
from vissl_lite.losses.hashtag_softmax import HashtagSoftmax
from vissl_lite.parallel.shards import clip_grad_norm_, scatter_, whole

V, B, D = 2, 12, 5
TAGS = [[0, 2], [], [1], [0, 1, 2], [2], [1, 2], [], [], [], [0], [1], [0, 2]]
MANY = [[8 * t + 7 for t in tags] for tags in TAGS]  # 7, 15, 23: of three ranks of four
SHARDS = [(2, 25), (4, 3)]  # ranks, classes: 25 are uneven, and 3 leave a rank without any


def problem(classes, seed=0):
    """Features [V, B, D], weight [K, D], bias [K]."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((V, B, D), (classes, D), (classes,))
    return tuple(torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)


def head_of(weight_KD, bias_K, world=0):
    head = Linear(len(weight_KD), shard_classes=True, in_dim=D).to(weight_KD.dtype)
    head.load_state_dict({"weight": weight_KD, "bias": bias_K})
    if world:
        head.shard_(init_device_mesh("cpu", (world,)))
    return head


def mine(x, r, world, axis=0):
    return x.chunk(world, axis)[r]


def batch_of(r, world, label=None, tags=None):
    rows = slice(r * B // world, (r + 1) * B // world)
    label = None if label is None else label[rows]
    return Batch([], torch.arange(B)[rows], label, None if tags is None else Tags.pack(tags[rows]))


def _on_rank(r, world, loss, x_VBD, weight_KD, bias_K, label, tags):
    """What the loss says, and the gradients for features, weight, bias."""
    x_VBD = mine(x_VBD, r, world, 1).clone().requires_grad_()
    head = head_of(weight_KD, bias_K, world)
    logits = head(x_VBD.flatten(0, 1)).unflatten(0, (V, B // world))
    result = loss(SimpleNamespace(logits=[logits]), batch_of(r, world, label, tags))
    result = result if isinstance(result, dict) else {"loss": result}
    result["loss"].backward()
    result = {name: value.detach() for name, value in result.items()}
    return result, x_VBD.grad, *(p.grad.full_tensor() for p in head.parameters())


def check(ranks, loss, expected, classes, label=None, tags=None):
    """`expected(z_VBK)` is the loss of one process; returns the metrics, averaged over ranks."""
    x, weight, bias = leaves = problem(classes)
    answers = ranks(_on_rank, loss, *leaves, label, tags)
    results, dx, dw, db = zip(*answers)
    for leaf in leaves:
        leaf.requires_grad_()
    value = expected(x @ weight.T + bias)
    value.backward()
    means = {name: sum(r[name] for r in results) / ranks.world for name in results[0]}
    for got, want in (
        (means["loss"], value.detach()),
        (torch.cat(dx, 1) / ranks.world, x.grad),  # of the sum of the ranks' losses
        *((got, weight.grad) for got in dw),  # of their mean already
        *((got, bias.grad) for got in db),
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    return means


def targets(tags, classes):
    """[B, K], 1/k on the k tags of an image."""
    q_BK = torch.zeros(B, classes, dtype=torch.float64)
    for q_K, row in zip(q_BK, tags):
        q_K[row] = 1 / max(1, len(row))
    return q_BK


def soft_cross_entropy(z_VBK, q_BK):
    """Mean over crops and over images that have a target."""
    total = F.cross_entropy(z_VBK.flatten(0, 1), q_BK.repeat(V, 1), reduction="sum")
    return total / (V * q_BK.any(1).sum())


def tags_of(classes):
    return MANY if classes == 25 else TAGS


@pytest.mark.parametrize(("world", "classes"), [(1, 25), (3, 25), (4, 25), *SHARDS])
def test_hashtag_softmax(world, classes, ranks):
    """25 classes are uneven on 2, 3 and 4 ranks; of 4 ranks, the third has no tag at all."""
    tags = tags_of(classes)
    q_BK = targets(tags, classes)
    means = check(
        ranks(world), HashtagSoftmax(), lambda z: soft_cross_entropy(z, q_BK), classes, tags=tags
    )
    x, weight, bias = problem(classes)
    best_VB = (x @ weight.T + bias).argmax(-1)
    right_VB = q_BK.gather(1, best_VB.T).T > 0
    precision = right_VB[:, q_BK.any(1)].double().mean().item()
    assert 0 < precision < 1
    assert means["precision@1"].item() == pytest.approx(precision, abs=1e-12)
    assert means["untagged"].item() == pytest.approx(4 / 12)


def test_no_tag_anywhere_is_nothing(ranks):
    answers = ranks(2)(_on_rank, HashtagSoftmax(), *problem(5), None, [[]] * B)
    for result, *grads in answers:
        assert result["loss"] == 0
        assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("world", "classes"), SHARDS)
def test_cross_entropy_with_class_ids(world, classes, smoothing, ranks):
    label = torch.arange(B) * 2 % classes
    label[torch.tensor([1, 6, 7, 8])] = -1

    def expected(z_VBK):
        z_NK, label_N = z_VBK.flatten(0, 1), label.repeat(V)
        return F.cross_entropy(z_NK, label_N, ignore_index=-1, label_smoothing=smoothing)

    means = check(ranks(world), CrossEntropy(smoothing), expected, classes, label)
    x, weight, bias = problem(classes)
    right_VB = (x @ weight.T + bias).argmax(-1) == label
    assert means["top1"].item() == pytest.approx(right_VB[:, label >= 0].double().mean().item())


@pytest.mark.parametrize(("world", "classes"), SHARDS)
def test_cross_entropy_with_probabilities(world, classes, ranks):
    x, weight, _ = problem(classes, seed=1)
    q_BK = (x[0] @ weight.T).softmax(1)

    def expected(z_VBK):
        z_NK, q_NK = z_VBK.flatten(0, 1), q_BK.repeat(V, 1)
        return F.cross_entropy(z_NK, q_NK, label_smoothing=0.1)

    check(ranks(world), CrossEntropy(0.1), expected, classes, q_BK)


@pytest.mark.parametrize(("world", "classes"), SHARDS)
def test_binary_cross_entropy_of_tags(world, classes, ranks):
    tags = tags_of(classes)
    y_BK = (targets(tags, classes) > 0).double()

    def expected(z_VBK):
        return F.binary_cross_entropy_with_logits(z_VBK, y_BK.expand(V, -1, -1))

    check(ranks(world), BinaryCrossEntropy("tags"), expected, classes, tags=tags)


def _refused(r, world, loss, label):
    try:
        _on_rank(r, world, loss, *problem(5), label, None)
    except ValueError as error:
        return str(error)


def test_multi_hot_labels_are_refused(ranks):
    label = torch.zeros(B, 5, dtype=torch.int64)
    for message in ranks(2)(_refused, BinaryCrossEntropy("label"), label):
        assert message.startswith("loss: binary_cross_entropy needs the scores of all classes")


def _layout(r, world, classes):
    head = head_of(*problem(classes)[1:], world)
    x_ND = mine(problem(classes)[0], r, world, 1).flatten(0, 1)
    logits = head(x_ND).unflatten(0, (V, B // world))
    local = head.weight.to_local()
    sizes = [len(local), len(head.bias.to_local()), local.untyped_storage().nbytes() // (8 * D)]
    return list(head.state_dict()), sizes, logits.shape, logits.full()


@pytest.mark.parametrize(("classes", "world", "rows"), [(25, 3, [9, 9, 7]), (5, 4, [2, 2, 1, 0])])
def test_each_rank_keeps_its_rows_only_and_can_see_all_scores(classes, world, rows, ranks):
    x, weight, bias = problem(classes)
    answers = ranks(world)(_layout, classes)
    assert [sizes for _, sizes, _, _ in answers] == [[n, n, n] for n in rows]
    for r, (names, _, shape, z_VBK) in enumerate(answers):
        assert names == ["weight", "bias"]
        assert shape == z_VBK.shape == (V, B // world, classes)
        expected = mine(x, r, world, 1) @ weight.T + bias
        torch.testing.assert_close(z_VBK, expected, rtol=0, atol=1e-13)


def _measured(r, world, x_VBD, weight_KD, bias_K):
    head = head_of(weight_KD, bias_K, world)
    x_VBD = mine(x_VBD, r, world, 1)
    return _scored(head(x_VBD.flatten(0, 1)).unflatten(0, x_VBD.shape[:2]))


def test_a_measurement_of_precision_takes_their_softmax(ranks):
    x, weight, bias = problem(25)
    lse_VB = torch.cat(ranks(2)(_measured, x, weight, bias), 1)
    torch.testing.assert_close(lse_VB, (x @ weight.T + bias).logsumexp(-1), rtol=0, atol=1e-12)


def _equal_scores(r, world):
    head = head_of(torch.zeros(25, D), torch.zeros(25), world)
    logits = head(torch.ones(B, D)).unflatten(0, (1, B))
    return logits.softmax(torch.zeros(B, dtype=torch.int64))[2]


def test_of_equal_scores_the_first_is_the_highest(ranks):
    assert not torch.cat(ranks(4)(_equal_scores)).any()


def _half(r, world, x_VBD, weight_KD, bias_K):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return _on_rank(r, world, HashtagSoftmax(), x_VBD, weight_KD, bias_K, None, MANY)


def test_half_precision_products_have_a_full_precision_softmax(ranks):
    """The same bf16 logits, up to 150, as a dense head has; bf16 statistics would be 1e-2 off."""
    x, weight, bias = (t.float() for t in problem(25))
    results, dx, (dw, _), _ = zip(*ranks(2)(_half, 20 * x, weight, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z_VBK = head_of(weight, bias)(20 * x)
    assert z_VBK.dtype == torch.bfloat16
    expected = soft_cross_entropy(z_VBK.float(), targets(MANY, 25).float())
    loss = sum(result["loss"] for result in results) / 2
    assert loss.dtype == dw.dtype == dx[0].dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def _frozen_trunk(r, world, x_VBD, weight_KD, bias_K):
    head = head_of(weight_KD, bias_K, world)
    logits = head(mine(x_VBD, r, world, 1).flatten(0, 1)).unflatten(0, (V, B // world))
    loss = HashtagSoftmax()(SimpleNamespace(logits=[logits]), batch_of(r, world, tags=MANY))
    loss["loss"].backward()
    return head.weight.grad.full_tensor(), head.bias.grad.full_tensor()


def test_features_may_need_no_gradient(ranks):
    leaves = problem(25)
    want = ranks(2)(_on_rank, HashtagSoftmax(), *leaves, None, MANY)
    for got, (*_, dw, db) in zip(ranks(2)(_frozen_trunk, *leaves), want):
        torch.testing.assert_close(got, (dw, db), rtol=0, atol=0)


def _twice(r, world):
    head = head_of(*problem(5)[1:], world)
    logits = head(torch.ones(B, D, dtype=torch.float64)).unflatten(0, (1, B))
    loss = logits.softmax(torch.zeros(B, dtype=torch.int64))[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_backward_raises(ranks):
    ranks(2)(_twice)


# ------------------------------------------------------------------ with a trunk, whole steps


class Net(nn.Module):
    """A trunk and a head; the output is the head's."""

    def __init__(self, classes):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, D))
        self.head = Linear(classes, shard_classes=True, in_dim=D)
        self.double()

    def forward(self, x_VBC):
        logits = self.head(self.trunk(x_VBC).flatten(0, 1))
        return logits.unflatten(0, x_VBC.shape[:2]).clone()


def images():
    g = torch.Generator().manual_seed(2)
    return torch.randn(3, V, B, 7, generator=g, dtype=torch.float64)


def train(net, r, world, forward=None):
    """Three steps; the optimizer, and the norm of the last gradient."""
    tags = tags_of(net.head.out_dim)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9, foreach=False)
    for x_VBC in images():
        logits = (forward or net)(mine(x_VBC, r, world, 1))
        loss = HashtagSoftmax()(SimpleNamespace(logits=[logits]), batch_of(r, world, tags=tags))
        optimizer.zero_grad()
        loss["loss"].backward()
        norm = clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
    return optimizer, norm


def sharded_net(strategy, world, classes=25):
    """Equal weights: sharded where they are, or (zero3) sent by rank 0 to shards of a meta net."""
    net, forward = Net(classes), None
    everyone = mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("shard",))
    if strategy == "hsdp":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard"))
    full = {name: p.detach() for name, p in net.named_parameters()}
    if strategy == "zero3":
        net.to("meta")
    net.head.shard_(everyone)
    if strategy == "reference_ddp":
        names = [f"head.{name}" for name, _ in net.head.named_parameters()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, names)
        forward = DistributedDataParallel(net)
    else:
        fully_shard(net.trunk, mesh=mesh)
        fully_shard(net, mesh=mesh, ignored_params=set(net.head.own_parameters))
    if strategy == "zero3":
        net.to_empty(device="cpu")
        scatter_(net, full)
    return net, forward


def _steps(r, world, strategy):
    net, forward = sharded_net(strategy, world)
    optimizer, norm = train(net, r, world, forward)
    state = [whole(optimizer.state[p]["momentum_buffer"]) for p in net.parameters()]
    return [whole(p) for p in net.parameters()], state, norm


@pytest.mark.parametrize(("world", "strategy"), [(3, "zero3"), (4, "hsdp"), (2, "reference_ddp")])
def test_steps_equal_those_of_one_process(world, strategy, ranks):
    net = Net(25)
    before = copy.deepcopy(net)
    optimizer, norm = train(net, 0, 1)
    assert norm > 0.1  # it is clipped
    momentum = [optimizer.state[p]["momentum_buffer"] for p in net.parameters()]
    assert all((a != b).any() for a, b in zip(net.parameters(), before.parameters()))
    for got, got_momentum, got_norm in ranks(world)(_steps, strategy):
        torch.testing.assert_close(got, [whole(p) for p in net.parameters()], rtol=0, atol=1e-12)
        torch.testing.assert_close(got_momentum, momentum, rtol=0, atol=1e-12)
        torch.testing.assert_close(got_norm, norm.detach(), rtol=0, atol=1e-12)


def _state(net, optimizer):
    flat = {f"model.{name}": p.data for name, p in net.named_parameters()}
    momentum = {n: optimizer.state[p]["momentum_buffer"] for n, p in net.named_parameters()}
    return flat | {f"optimizer.{name}.momentum_buffer": m for name, m in momentum.items()}


def _save(r, world, folder):
    net, _ = sharded_net("zero3", world, classes=5)
    state = _state(net, train(net, r, world)[0])
    dcp.save(state, storage_writer=Writer(folder, save_distributed=True))
    return {name: whole(t) for name, t in state.items()}


def _load(r, world, folder):
    net, _ = sharded_net("zero3", world, classes=5)
    state = _state(net, train(net, r, world)[0])
    for t in state.values():
        t.zero_()
    dcp.load(state, storage_reader=Reader(folder))
    return {name: whole(t) for name, t in state.items()}


@pytest.mark.parametrize(("saved", "loaded"), [(4, 2), (2, 4)])
def test_a_checkpoint_goes_to_another_number_of_processes(saved, loaded, tmp_path, ranks):
    """5 classes: on 4 processes 2, 2, 1 and none."""
    written = ranks(saved)(_save, str(tmp_path))[0]
    assert written["model.head.weight"].shape == (5, D)
    for read in ranks(loaded)(_load, str(tmp_path)):
        assert read.keys() == written.keys()
        assert all(torch.equal(read[name], written[name]) for name in written)


def test_one_process_without_a_group_has_an_ordinary_layer():
    assert not dist.is_initialized()
    x, weight, bias = problem(25)
    head = head_of(weight, bias)
    torch.testing.assert_close(head(x), x @ weight.T + bias, rtol=0, atol=1e-13)
    assert head.own_parameters == []
