"""What is shown, in the terminal and as CSV."""

import csv
import io

from rich.console import Console
from suite.some_runs import result

from vissl_lite.suite.table import Table, print_table, write_csv


def shown(table, **given):
    console = Console(file=io.StringIO(), width=100, highlight=False)
    print_table(table, console=console, **given)
    return console.file.getvalue()


def some_table():
    return Table.of(
        [
            result(label="b", step=20, metrics={"top1": 0.5, "top5": 0.9}, epoch=2.0),
            result("linear", "b", 20, {"top1": 0.7}),
            result("multilabel", "b", 20, problem="needs tags"),
            result(label="a", step=None, metrics={"top1": 0.25, "top5": 0.5}),
            result(label="b", step=3, metrics={"top1": 0.4, "top5": 0.8}),
        ]
    )


def test_rows_in_the_order_of_the_command_and_of_steps():
    lines = [line.split() for line in shown(some_table()).splitlines() if line.strip()]
    assert lines == [
        ["knn", "linear", "multilabel"],
        ["weights", "step", "epoch", "top1", "top1"],
        ["b", "3", "0.4000"],
        ["b", "20", "2.00", "0.5000*", "0.7000", "-", "(a)"],
        ["a", "0.2500"],
        ["(a)", "needs", "tags"],
    ]


def test_the_best_of_several_is_marked():
    table = some_table()
    assert table.best("knn") == 0.5
    assert table.best("linear") is None
    assert table.best("multilabel") is None


def test_every_metric():
    text = shown(some_table(), every_metric=True)
    assert text.count("top5") == 3
    assert "0.9000" in text


def test_many_evaluations_stay_within_100_columns():
    names = [f"evaluation_{i}" for i in range(12)]
    label = "experiments/" + "x" * 60
    text = shown(Table.of([result(name, label, 123456) for name in names]))
    assert max(map(len, text.splitlines())) <= 100
    assert all(name in text for name in names)
    assert "…" not in text


def test_labels_do_not_steer_the_terminal():
    text = shown(Table.of([result(label="[bold]\x1b[2J"), result("low", "[/x]", problem="[/y]")]))
    assert "\x1b" not in text
    assert "[bold]" in text
    assert "[/x]" in text
    assert "(a) [/y]" in text


def test_rows_of_different_images_do_not_compare():
    other = {"evaluation": {}, "labelled": {"size": 3}, "precision": "fp32"}
    table = Table.of([result(), result(label="b", settings=other)])
    assert "differ in labelled.size and do not compare" in shown(table)
    assert "do not compare" not in shown(some_table())


def test_csv_has_every_metric_in_full_precision(tmp_path):
    value = 1 / 3
    table = Table.of([result(metrics={"top1": value, "n": 2.0}), result("x", problem="a,\n'b'")])
    write_csv(table, tmp_path / "suite.csv")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "suite.csv").read_bytes().decode())))
    assert [(r["evaluation"], r["metric"], r["main"]) for r in lines] == [
        ("knn", "top1", "1"),
        ("knn", "n", "0"),
        ("x", "", ""),
    ]
    assert float(lines[0]["value"]) == value
    assert lines[2]["problem"] == "a,\n'b'"


def test_what_is_no_number_is_not_the_best():
    values = {"a": float("nan"), "b": 0.25, "c": 0.5}
    table = Table.of([result(label=label, metrics={"top1": v}) for label, v in values.items()])
    assert table.best("knn") == 0.5
    assert [table.cell(row, "knn") for row in table.rows] == ["nan", "0.2500", "0.5000*"]


def test_every_problem_has_a_sign():
    table = Table.of([result(label=f"{i}", problem=f"no {i}") for i in range(60)])
    signs = [table.cell(row, "knn") for row in table.rows]
    assert len(set(signs)) == 60
    assert (signs[0], signs[51], signs[52], signs[59]) == ("- (a)", "- (Z)", "- (1)", "- (8)")
    assert "(8) no 59" in table.notes()
