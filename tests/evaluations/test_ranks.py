from distributed import run_ranks

from vissl_lite.errors import ConfigError
from vissl_lite.evaluations._ranks import share_out


def sevenths(rank, world, failing):
    def row(t):
        if t == failing:
            raise ConfigError(f"row {t}: does not exist")
        return [t / 7, rank]

    try:
        return share_out(5, 2, row).tolist()
    except ConfigError as error:
        return str(error)


def test_rows_are_everywhere_and_the_mistake_of_one_rank_is_that_of_all():
    table = [[t / 7, t % 2] for t in range(5)]
    assert run_ranks(sevenths, 2, None) == [table, table]
    assert run_ranks(sevenths, 2, 3) == ["row 3: does not exist"] * 2
