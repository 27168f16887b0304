import re

from vissl_lite.report.page import Html, details, page, section, slug, table, tag
from vissl_lite.report.style import STYLE

EVIL = '"><script>alert(1)</script>'


def test_whatever_comes_from_outside_is_escaped():
    parts = [
        section(EVIL, tag("p", EVIL), tag("img", alt=EVIL, src="data:,")),
        section("B", table(EVIL, [EVIL, "b"], [[EVIL, EVIL]]), details(EVIL, EVIL)),
    ]
    text = page(EVIL, parts, EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 14
    assert text.count("alert(1)") == 14


def test_tags_and_attributes():
    assert tag("p", "a < b", class_="soft") == '<p class="soft">a &lt; b</p>'
    assert tag("svg", aria_label="x", hidden=True, role=None) == '<svg aria-label="x" hidden></svg>'
    assert tag("path", d="M0 0") == '<path d="M0 0"/>'
    assert tag("p", [None, Html("<b>"), 1]) == "<p><b>1</p>"


def test_a_table_names_its_rows_and_aligns_numbers():
    text = table("Results", ["run", "top1", "state"], [["a", "0.9", "done"], ["b", "-", ""]])
    assert "<caption>Results</caption>" in text
    assert text.count('scope="col"') == 3
    assert text.count('<th scope="row">') == 2
    assert "num" not in text  # "-" is no number
    text = table("", ["", ""], [["a", "0.9"]])
    assert '<td class="num">0.9</td>' in text
    assert "<thead>" not in text


def test_the_contents_link_to_the_sections():
    text = page("T", [section("One & two"), section("Three")])
    targets = re.findall(r'href="#([^"]+)"', text)
    assert targets == re.findall(r'<h2 id="([^"]+)"', text) == ["one-two", "three"]
    assert "One &amp; two</a>" in text
    assert "default-src &#x27;none&#x27;" in text
    assert '<html lang="en">' in text


def test_colours_are_readable_in_both_schemes():
    light, dark = STYLE.split("prefers-color-scheme: dark")
    for text in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w+)", text))
        assert len(colours) == 8 + 8
        for name in ("ink", "soft", "link", "good", "warn", *(f"s{i}" for i in range(8))):
            for ground in ("paper", "raised"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def contrast(a, b):
    """WCAG 2.2, "contrast ratio"."""
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    """Of #rgb or #rrggbb, WCAG 2.2, "relative luminance"."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_slug():
    assert [slug("Learning rate"), slug("...")] == ["learning-rate", "section"]
