"""The page: escaped, self-contained, a real table."""

import re
from html.parser import HTMLParser

from suite.some_runs import result

from vissl_lite.suite.html import SCRIPT, STYLE, suite_page
from vissl_lite.suite.table import Table

EVIL = "<script>alert(1)</script>\"' onload=x"


class Tags(HTMLParser):
    """All tags with their attributes, and whether each is closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "wbr", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def some_page(label="simclr"):
    return suite_page(
        Table.of(
            [
                result(label=label, step=1, metrics={"top1": 0.25, EVIL: 0.1}),
                result(label=label, step=2, metrics={"top1": 0.75}),
                result(label=label, step=3, problem=EVIL),
                result("linear", "file.pth", None, {"top1": 1.5}),
            ]
        ),
        f"vissl-lite benchmark_suite {EVIL}",
    )


def test_well_formed_and_accessible():
    tags = Tags(some_page())
    assert tags.open == []
    assert tags.of("html") == [{"lang": "en"}]
    assert len(tags.of("caption")) == len(tags.of("table"))
    assert {th.get("scope") for th in tags.of("th")} == {"col", "row"}
    assert [abbr["title"] for abbr in tags.of("abbr")] == ["best"]


def test_what_users_write_is_text():
    page = some_page(EVIL)
    assert page.count("<script>") == 1
    assert "<script>alert" not in page
    assert not any("onload" in attributes for _, attributes in Tags(page).found)


def test_needs_nothing_from_elsewhere():
    page = some_page()
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert "url(" not in page
    [policy] = [m for m in Tags(page).of("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy["content"]
    assert "script-src 'sha256-" in policy["content"]
    assert SCRIPT in page
    assert STYLE in page


def test_values_bars_and_what_sorts():
    page = some_page()
    [best] = re.findall(r'<td class="num metric best" data-value="0.75">(.*?)</td>', page)
    assert best.startswith("0.7500")
    assert "width:75.0%" in best
    assert "width:100.0%" in page  # 1.5, the largest of its column
    assert page.count('data-value=""') == 4 + 1 + 4 + 1  # not run, not possible, no epoch, no step


def test_courses_only_of_several_checkpoints():
    assert "Over training" in some_page()
    assert "Over training" not in suite_page(Table.of([result()]), "")
