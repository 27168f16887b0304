"""Debian's Chromium, without a window: what a page looks like, and what it says about itself.

The page lies in a frame of the width of a phone: the browser's own window cannot be that narrow.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    "--disable-background-networking",
)
PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  const width = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("body *")].filter(e =>
    !e.closest(".wide") && e.getBoundingClientRect().right > width + 1);
  parent.postMessage(JSON.stringify({
    width: width, scroll: document.documentElement.scrollWidth,
    images: document.images.length,
    broken: [...document.images].filter(i => !i.naturalWidth).length,
    scrolled: [...document.querySelectorAll(".wide")].filter(e =>
      e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel),
    wide: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120)),
  }), "*");
});</script>"""
LISTEN = """<script>addEventListener("message", e => {
  document.body.dataset.found = e.data;
});</script>"""


def probe(file: Path, width: int, folder: Path) -> dict:
    """Width of the page, of its content, images, what sticks out, and the captions of tables that
    are wider than the page; all details unfolded.

    A copy of the page gets a script, and loses the policy that forbids scripts.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", file.read_text())
    (folder / "probe.html").write_text(text.replace("</body>", f"{PROBE}</body>"))
    frame = framed(folder / "probe.html", width, 900, folder)
    frame.write_text(frame.read_text().replace("<body>", f"{LISTEN}<body>"))
    dom = chromium(frame, folder, "--virtual-time-budget=5000", "--dump-dom")
    found = re.search(r'data-found="([^"]*)"', dom)
    assert found, dom[-500:]
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">"))


def screenshot(file: Path, width: int, height: int, out: Path, folder: Path) -> None:
    """A PNG of the page at this width."""
    frame = framed(file, width, height, folder)
    size = f"--window-size={max(width, 500)},{height}"
    chromium(frame, folder, f"--screenshot={out}", size, "--virtual-time-budget=5000")


def framed(file: Path, width: int, height: int, folder: Path) -> Path:
    style = f"width:{width}px;height:{height}px;border:0;display:block"
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><body><style>body{{margin:0}}</style><iframe style="{style}"'
        f' src="file://{file.absolute()}"></iframe></body>'
    )
    return frame


def chromium(page: Path, folder: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, f"file://{page}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
