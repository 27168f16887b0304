from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from vissl_lite import ConfigError
from vissl_lite.data.batch import Batch
from vissl_lite.heads.prototypes import Prototypes
from vissl_lite.losses._sinkhorn import sinkhorn
from vissl_lite.losses.swav import SwAV

V, B, D, K = 3, 8, 5, 7


def embeddings(step=0, crops=V, images=B):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(crops, images, D, generator=generator, dtype=torch.float64)


def cosines(rows=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(rows, D, generator=generator, dtype=torch.float64), dim=1)
    return z @ F.normalize(torch.randn(K, D, generator=generator, dtype=torch.float64), dim=1).T


def naive_sinkhorn(cosine_NK, epsilon, iterations):
    """The paper's algorithm 1 on [K, N], without any precaution."""
    q = torch.exp(cosine_NK.T / epsilon)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def naive_loss(x_VBD, weights, queue_AQD=None, assigned=(0, 1), epsilon=0.05, iterations=3):
    """Swapped prediction, loop by loop; `weights` are the prototypes of each head."""
    z, total = F.normalize(x_VBD, dim=-1), 0
    for weight in weights:
        for i, a in enumerate(assigned):
            with torch.no_grad():
                rows = z[a] if queue_AQD is None else torch.cat([queue_AQD[i], z[a]])
                codes = naive_sinkhorn(rows @ weight.T, epsilon, iterations)[-len(z[a]) :]
            others = [v for v in range(len(z)) if v != a]
            for v in others:
                for b in range(z.shape[1]):
                    p = torch.softmax(z[v, b] @ weight.T / 0.1, 0)
                    cross_entropy = -(codes[b] * p.log()).sum()
                    total += cross_entropy / z.shape[1] / len(others) / len(assigned) / len(weights)
    return total


def make_scorer(num_prototypes=K):
    torch.manual_seed(0)
    return Prototypes(num_prototypes, in_dim=D).double()


def make_loss(**config):
    return SwAV(**config, embed_dim=D, steps_per_epoch=10).double()


def run(loss, scorer, x, step=0):
    """Metrics, and gradients of embeddings and prototypes."""
    x = x.clone().requires_grad_()
    scorer.zero_grad()
    logits = [s.unflatten(0, x.shape[:2]) for s in scorer(x.flatten(0, 1))]
    outputs = SimpleNamespace(embedding=x, logits=logits, model=SimpleNamespace(scorer=scorer))
    result = loss(outputs, Batch([], torch.arange(x.shape[1]), step=step))
    result["loss"].backward()
    grads = [x.grad, *(p.grad.clone() for p in scorer.parameters())]
    return {name: value.detach() for name, value in result.items()}, grads


def naive_run(scorer, x, *args, **kwargs):
    x = x.clone().requires_grad_()
    weights = [p.detach().clone().requires_grad_() for p in scorer.parameters()]
    loss = naive_loss(x, weights, *args, **kwargs)
    loss.backward()
    return loss.detach(), [x.grad, *(w.grad for w in weights)]


def assert_equal(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 1), (0.05, 3), (0.03, 10), (0.01, 3)])
def test_sinkhorn_equals_the_paper(epsilon, iterations):
    codes = sinkhorn(cosines(), epsilon, iterations)
    assert_equal(codes, naive_sinkhorn(cosines(), epsilon, iterations), atol=1e-12)
    assert_equal(codes.sum(1), torch.ones(B, dtype=torch.float64))


def test_sinkhorn_is_balanced_in_the_end():
    codes = sinkhorn(cosines(), 0.5, 1000)
    assert_equal(codes.sum(0), torch.full((K,), B / K, dtype=torch.float64), atol=1e-9)


def test_sinkhorn_is_finite_in_float32_where_exp_overflows():
    assert naive_sinkhorn(cosines().float(), 0.01, 3).isnan().any()  # what others return
    codes = sinkhorn(cosines().float(), 0.01, 3)
    assert_equal(codes.double(), naive_sinkhorn(cosines(), 0.01, 3), atol=1e-4)


def test_sinkhorn_survives_a_prototype_that_nobody_likes():
    """exp of the difference, -200, is 0 in float32: a plain sum would divide by 0."""
    cosine = torch.ones(4, 3)
    cosine[:, 2] = -1
    assert_equal(sinkhorn(cosine, 0.01, 3), torch.full((4, 3), 1 / 3), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sinkhorn_widens_before_it_divides(dtype):
    """VISSL divided by epsilon in fp16."""
    half = cosines().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = sinkhorn(half, 0.03, 3)
    assert codes.dtype == torch.float32
    assert_equal(codes.double(), naive_sinkhorn(half.double(), 0.03, 3), atol=1e-5)


def _sinkhorn_on_rank(rank, world, dtype):
    return sinkhorn(cosines().to(dtype).chunk(world)[rank], 0.01, 3)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("world", [2, 4])
def test_sinkhorn_on_ranks_equals_one_process(world, dtype, atol, ranks):
    codes = torch.cat(ranks(world)(_sinkhorn_on_rank, dtype))
    assert_equal(codes.double(), naive_sinkhorn(cosines(), 0.01, 3), atol)


@pytest.mark.parametrize("num_prototypes", [K, [K, 4]], ids=["one head", "two heads"])
@pytest.mark.parametrize(
    ("crops", "assigned"), [(2, (0, 1)), (4, (0, 1)), (4, (0, 2, 3)), (3, (1,))]
)
def test_equals_the_definition(crops, assigned, num_prototypes):
    scorer, x = make_scorer(num_prototypes), embeddings(crops=crops)
    result, grads = run(make_loss(crops_for_assign=assigned), scorer, x)
    loss, expected = naive_run(scorer, x, assigned=assigned)
    assert_equal(result["loss"], loss)
    assert_equal(grads, expected)


def test_the_queue_waits_until_it_is_full_and_is_scored_by_the_prototypes_of_today():
    """VISSL used random rows until then. 20 rows hold two batches of 8."""
    loss, scorer, history = make_loss(queue_length=20), make_scorer(), []
    for step in range(5):
        torch.nn.init.normal_(scorer.sets[0].weight)
        scorer.after_step()
        x = embeddings(step)
        queue = torch.cat(history[-1:-3:-1], dim=1) if len(history) >= 2 else None
        result, grads = run(loss, scorer, x, step)
        expected, expected_grads = naive_run(scorer, x, queue)
        assert_equal(result["loss"], expected)
        assert_equal(grads, expected_grads)
        history.append(F.normalize(x[:2], dim=-1))
    assert_equal(loss.queue.rows_AQD[:, :8], history[-1])  # the newest in front


def test_the_queue_is_used_from_its_epoch_on_and_full_by_then():
    loss, scorer = make_loss(queue_length=16, queue_start_epoch=0.4), make_scorer()
    for step in range(4):
        assert_equal(
            run(loss, scorer, embeddings(step), step)[0]["loss"],
            naive_run(scorer, embeddings(step))[0],
        )
    queue = F.normalize(torch.cat([embeddings(3)[:2], embeddings(2)[:2]], 1), dim=-1)
    assert_equal(
        run(loss, scorer, embeddings(4), 4)[0]["loss"], naive_run(scorer, embeddings(4), queue)[0]
    )


def test_the_queue_resumes():
    loss, again, scorer = make_loss(queue_length=16), make_loss(queue_length=16), make_scorer()
    for step in range(3):
        run(loss, scorer, embeddings(step), step)
    again.load_state_dict(loss.state_dict())
    expected = run(loss, scorer, embeddings(3), 3)
    assert run(again, scorer, embeddings(3), 3)[0] == expected[0]


def _train_on_rank(rank, world, num_prototypes):
    """Five steps of gradient descent on the prototypes with gradients averaged over ranks."""
    loss, scorer = make_loss(queue_length=16, queue_start_epoch=0.3), make_scorer(num_prototypes)
    results = []
    for step in range(5):
        result, grads = run(loss, scorer, embeddings(step).chunk(world, 1)[rank], step)
        with torch.no_grad():
            for p in scorer.parameters():
                torch.distributed.all_reduce(p.grad)
                p -= p.grad / world
        scorer.after_step()
        results.append((result, grads[0], [p.detach().clone() for p in scorer.parameters()]))
    return results


@pytest.mark.parametrize("num_prototypes", [K, [K, 4]], ids=["one head", "two heads"])
def test_ranks_with_queues_equal_one_process_over_several_steps(num_prototypes, ranks):
    whole = ranks(1)(_train_on_rank, num_prototypes)[0]
    for world in (2, 4):
        for step, found in enumerate(zip(*ranks(world)(_train_on_rank, num_prototypes))):
            results, grads, weights = zip(*found)
            result, grad, weight = whole[step]
            assert_equal(sum(r["loss"] for r in results) / world, result["loss"])
            assert_equal(torch.cat(grads, 1) / world, grad)
            assert_equal(weights[0], weight)
            assert [r["prototype_usage"] for r in results] == [result["prototype_usage"]] * world
            entropy = sum(r["code_entropy"] for r in results) / world
            assert_equal(entropy, result["code_entropy"])


def test_hard_assignment_rounds_the_codes_of_the_first_steps():
    loss, scorer, x = make_loss(hard_assignment_steps=2), make_scorer(), embeddings()
    hard = run(loss, scorer, x, step=1)[0]
    soft = run(loss, scorer, x, step=2)[0]
    z, weight = F.normalize(x, dim=-1), scorer.sets[0].weight.detach()
    target = [naive_sinkhorn(z[a] @ weight.T, 0.05, 3).argmax(1) for a in (0, 1)]
    pairs = [(a, v) for a in (0, 1) for v in range(V) if v != a]
    expected = sum(F.cross_entropy(z[v] @ weight.T / 0.1, target[a]) for a, v in pairs) / len(pairs)
    assert_equal(hard["loss"], expected)
    assert hard["code_entropy"] == 0
    assert_equal(soft["loss"], naive_run(scorer, x)[0])


def test_metrics_tell_collapse_from_health():
    loss, scorer = make_loss(), make_scorer()
    spread = scorer.sets[0].weight.detach().expand(2, K, D)  # one image at each prototype
    healthy = run(loss, scorer, spread)[0]
    assert healthy["prototype_usage"] == 1
    assert healthy["code_entropy"] < 0.5
    collapsed = run(loss, scorer, torch.ones(2, K, D, dtype=torch.float64))[0]
    assert collapsed["code_entropy"].item() == pytest.approx(torch.log(torch.tensor(K)).item())


def test_prototypes_are_frozen_at_first():
    loss, scorer = make_loss(freeze_prototypes_steps=2), make_scorer()
    model = SimpleNamespace(scorer=scorer)
    for step, frozen in enumerate([True, True, False]):
        run(loss, scorer, embeddings(), step)
        loss.before_step(model, step)
        assert (scorer.sets[0].weight.grad is None) == frozen


def test_autocast_does_not_reach_the_loss():
    scorer, x = make_scorer().float(), embeddings().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result, _ = run(make_loss(), scorer, x)
    assert_equal(result["loss"].double(), naive_run(scorer.double(), embeddings())[0], atol=1e-5)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_never_waits_for_the_device():
    loss, scorer = make_loss(queue_length=8).cuda(), make_scorer().cuda()
    x = [embeddings(step).cuda() for step in range(3)]
    run(loss, scorer, x[0], 0)
    run(loss, scorer, x[1], 1)  # asks once whether the queue is full
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(loss, scorer, x[2], 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"epsilon": 0.001}, "too sharp"),
        ({"sinkhorn_iterations": 0}, "1 or more"),
        ({"crops_for_assign": (0, 3)}, r"crops \[0, 3\], but the views make 3"),
        ({"crops_for_assign": ()}, "codes for crops"),
        ({"queue_length": 7}, "less than one batch"),
    ],
)
def test_says_what_is_wrong(config, message):
    with pytest.raises(ConfigError, match=message):
        run(make_loss(**config), make_scorer(), embeddings())
