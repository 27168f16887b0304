"""Randomness as a function of where we are, not as a state that has to be saved.

What happens to a view is f(seed, epoch, position, view), the order of an epoch is f(seed, epoch).
Neither depends on rank, worker or world size, so a run resumes exactly from two integers.

Shape suffixes: B positions, D uniforms of one view.
"""

import math

import numpy as np

ORDER = 1  # the stream that `permute` takes its round keys from
UNIFORMS = 2  # the stream of `uniforms`
WORDS = 4  # numbers of 64 bits that Philox4x64 makes of one counter
ROUNDS = 16  # below 16, the permutations of 5 to 7 numbers are measurably not uniform


def generator(
    seed: int, epoch: int, position: int, view: int, stream: int = 0
) -> np.random.Generator:
    """The random numbers of one view of one sample; no two argument lists share any of them.

    Philox4x64 encrypts a counter of four words: key = (seed, stream), counter = (n, view, position,
    epoch), where n counts the numbers drawn, 2^64 blocks of them (Salmon et al. 2011, Parallel
    random numbers: as easy as 1, 2, 3).

    Args:
        position: place of the sample in the order of the epoch.
        view: index of the crop, counted over all view groups.
        stream: 0 for views, 1 for the order of an epoch; other uses take a number of their own.
    """
    return np.random.Generator(
        np.random.Philox(key=[seed, stream], counter=[0, view, position, epoch])
    )


def uniforms(
    seed: int, epoch: int, positions_B: np.ndarray, view: int, place: int, draws: int
) -> np.ndarray:
    """[B, draws] float64 in [0, 1): a row for each position, whatever the others are.

    counter = (position * blocks + n, view, place, epoch) with blocks = draws / 4, rounded up: rows
    of positions that follow one another lie behind one another in one stream, so that a whole
    batch costs one call and a few nanoseconds per number.

    Args:
        place: of the transform in the list of its view group.
    """
    blocks = -(-draws // WORDS)
    u_BD = np.empty((len(positions_B), draws))
    breaks = np.flatnonzero(np.diff(positions_B) != 1) + 1
    for first, last in zip([0, *breaks], [*breaks, len(positions_B)]):
        if draws and first < last:
            start = [int(positions_B[first]) * blocks, view, place, epoch]
            rng = np.random.Generator(np.random.Philox(key=[seed, UNIFORMS], counter=start))
            u_BD[first:last] = rng.random((last - first, blocks * WORDS))[:, :draws]
    return u_BD


def ragged(seed: int, positions_N: np.ndarray, counts_N: np.ndarray, stream: int) -> np.ndarray:
    """`generator(seed, 0, position, 0, stream).random(count)` of all N, one behind the other.

    Half a microsecond for four numbers, instead of 20 for a generator of each position.
    """
    blocks_N = -(-counts_N // WORDS)
    n_K = np.arange(blocks_N.sum()) - np.repeat(np.cumsum(blocks_N) - blocks_N, blocks_N)
    zeros_K, position_K = np.zeros(len(n_K), np.uint64), np.repeat(positions_N, blocks_N)
    counter = [(n_K + 1).astype(np.uint64), zeros_K, position_K.astype(np.uint64), zeros_K]
    words_K4 = np.stack(_philox(counter, [seed, stream]), 1)
    left_K = np.repeat(counts_N, blocks_N) - WORDS * n_K
    return (words_K4 >> np.uint64(11))[np.arange(WORDS) < left_K[:, None]] * 2.0**-53


def _philox(counter: list[np.ndarray], key: list[int]) -> list[np.ndarray]:
    """Philox4x64-10 of many counters, word by word (Salmon et al. 2011, section 3.2)."""
    a, b, c, d = counter
    for i in range(10):
        k0, k1 = (np.uint64((word + i * bump) % 2**64) for word, bump in zip(key, _BUMPS))
        (high_a, low_a), (high_c, low_c) = _product(a, _M0), _product(c, _M1)
        a, b, c, d = high_c ^ b ^ k0, low_c, high_a ^ d ^ k1, low_a
    return [a, b, c, d]


def _product(x: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """High and low 64 bits of x * factor."""
    high, low = np.uint64(factor >> 32), np.uint64(factor & 0xFFFFFFFF)
    x_high, x_low = x >> _32, x & _LOW
    a, b = x_high * low, x_low * high
    middle = (x_low * low >> _32) + (a & _LOW) + (b & _LOW)
    return x_high * high + (a >> _32) + (b >> _32) + (middle >> _32), x * np.uint64(factor)


def permute(positions: np.ndarray, n: int, seed: int, epoch: int, part: int = 0) -> np.ndarray:
    """A random permutation of 0..n-1, evaluated only at `positions`: nothing of size n is stored.

        a ~ sqrt(n), b = ceil(n / a), so that n <= a b < n + a
        (l, r) = divmod(x, b)
        for each round key k, alternately:  l = (l + F_k(r)) mod a  |  r = (r + F_k(l)) mod b
        x = l b + r, and again from the top while x >= n

    This is the generalised Feistel cipher with cycle walking of Black and Rogaway (2002, Ciphers
    with arbitrary finite domains). About one x in sqrt(n) needs a second walk.

    Args:
        positions: integers in [0, n), of one dimension or more.
        part: orders of different parts of one seed and epoch have nothing in common.

    Returns:
        int64 array of the same shape.

    Raises:
        IndexError: a position lies outside [0, n).
    """
    positions = np.asarray(positions)
    if positions.size and not (positions.min() >= 0 and positions.max() < n):
        raise IndexError(f"positions must lie in [0, {n})")
    keys = generator(seed, epoch, part, 0, ORDER).integers(0, 2**64, ROUNDS, np.uint64)
    x = _feistel(positions.astype(np.uint64), n, keys)
    while (outside := x >= n).any():
        x[outside] = _feistel(x[outside], n, keys)
    return x.astype(np.int64)


def _feistel(x: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """One walk: a bijection of [0, a * b). An even a lets it be an odd permutation as well."""
    a = 2 * (math.isqrt(n - 1) // 2 + 1)
    a, b = np.uint64(a), np.uint64(-(-n // a))
    left, right = np.divmod(x, b)
    for even, odd in zip(keys[::2], keys[1::2]):
        left = (left + mix(right, even)) % a
        right = (right + mix(left, odd)) % b
    return left * b + right


def mix(x: np.ndarray, key: np.uint64) -> np.ndarray:
    """32 bits that each depend on every bit of x + key: a hash (SplitMix64's multipliers)."""
    z = (x + key) * _C1
    z ^= z >> _32
    z *= _C2
    return z >> _32


_32, _C1, _C2 = np.uint64(32), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_M0, _M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157  # Philox4x64's multipliers and, per round,
_BUMPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # what is added to its key
