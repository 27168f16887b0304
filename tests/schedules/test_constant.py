from vissl_lite import SCHEDULES


def test_is_the_same_everywhere_and_at_the_end():
    schedule = SCHEDULES.build({"name": "constant", "value": 0.3})
    assert [schedule(where) for where in (0.0, 0.5, 1.0)] == [0.3] * 3
    assert SCHEDULES.build("constant")(0.7) == 1.0
