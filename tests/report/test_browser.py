"""The pages in a browser, headless Chromium: what they say, no errors, no scrolling sideways at 390 px, contrast, keyboard,
tables that sort, charts that answer.

A probe is added to a copy of each page; it writes what it finds into the document, which the browser prints.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.explore.sweep import run_sweep
from msdsim.problems import Entry, Gemm, Workload
from msdsim.report.sweep_page import sweep_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; the Debian package 'chromium' has one")

PROBE = """
<script>
const found = {errors: []};
addEventListener("error", event => found.errors.push(String(event.message)));
addEventListener("load", () => {
  const $ = selector => document.querySelector(selector), all = selector => [...document.querySelectorAll(selector)];
  found.width = innerWidth;
  found.wide = document.documentElement.scrollWidth;
  found.title = document.title;
  found.sections = all("details.sec > summary").length;
  found.links = all("nav a").every(link => document.getElementById(link.hash.slice(1)));
  // Text against what is behind it, by WCAG.
  const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  found.contrast = 21;
  for (const node of all("p, td, th, h1, h2, h3, a, b, span, button, figcaption, .label, .why, .busy, pre")) {
    if (![...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()) || !node.offsetParent) continue;
    const [x, y] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (x + 0.05) / (y + 0.05);
    if (ratio < found.contrast) { found.contrast = ratio; found.worst = node.outerHTML.slice(0, 80); }
  }
  // Keyboard: everything that answers the pointer can be reached, and keys work.
  found.unreachable = all("svg.curve, .zoom svg, .scroll, th button, .keys button, .tools button").filter(node => node.tabIndex < 0).length;
  const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  const curve = $("svg.curve");
  if (curve) { press(curve, "ArrowRight"); found.curve = $("#tip").textContent; }
  const zoom = $(".zoom svg");
  if (zoom) { const before = zoom.getAttribute("viewBox"); press(zoom, "+"); const after = zoom.getAttribute("viewBox");
    press(zoom, "0"); found.zoom = [before, after, zoom.getAttribute("viewBox")]; }
  const key = $(".keys button[data-key=busy]");
  if (key) { key.click(); found.pressed = key.getAttribute("aria-pressed"); found.dimmed = all(".dim").length; key.click();
    found.left = all(".dim").length; }
  const piece = $("[data-tip]");
  if (piece) { piece.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 5, clientY: 5}));
    found.tip = $("#tip").textContent; }
  const chart = $(".xy");
  if (chart) { const series = chart.querySelector(".keys button"); series.click();
    found.chart = {pressed: series.getAttribute("aria-pressed"), points: chart.querySelectorAll("[data-part]").length,
      dimmed: chart.querySelectorAll(".dim").length}; series.click();
    chart.querySelector(".dot").focus(); found.chart.focus = $("#tip").textContent; }
  const table = $("table.sort");
  if (table) { const column = 1, read = () => [...table.tBodies[0].rows].map(row => row.cells[column].textContent);
    const button = table.querySelectorAll("thead button")[column]; button.click(); found.up = read(); button.click(); found.down = read();
    found.sorted = table.querySelectorAll("thead th")[column].getAttribute("aria-sort"); }
  dispatchEvent(new Event("beforeprint"));
  found.folded = all("details.sec:not([open])").length;
  parent.postMessage(JSON.stringify(found), "*");
});
</script></head>"""

FRAME = """<!doctype html><meta charset="utf-8"><pre id="probe"></pre>
<script>addEventListener("message", event => {{ document.getElementById("probe").textContent = event.data; }});</script>
<iframe src="{name}" style="width:{width}px;height:2000px;border:0"></iframe>"""

TWO = Workload("two", "", "", None, (Entry("up", 2, Gemm(m=4, k=64, n=96)), Entry("<down>", 1, Gemm(m=4, k=96, n=64))))


def browse(page: str, folder: Path, width: int, dark: bool) -> dict:
    """What the probe finds in a page."""
    file = folder / f"page-{width}-{dark}.html"
    file.write_text(page.replace("</head>", PROBE, 1), encoding="utf-8")
    # In a frame as wide as a phone, since windows are at least 500 px wide.
    frame = folder / f"frame-{width}-{dark}.html"
    frame.write_text(FRAME.format(name=file.name, width=width), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
         "--enable-logging=stderr", "--v=0", "--window-size=1400,2100", "--virtual-time-budget=4000",
         *(["--blink-settings=preferredColorScheme=0"] if dark else []), "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=90, env={**os.environ, "LANG": "C.UTF-8"}, check=False)
    [text] = re.findall(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    found = json.loads(unescape(text))
    found["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found


ROWS = """
[sources]
bench = "made up"
""" + "".join(f"""
[[row]]
id = "row-{m}"
chip = "{chip}"
problem = "gemm:m={m},k=64,n=96"
dataflow = "bf16"
time_us = {time}
scope = "kernel"
source = "bench"
""" for m, time, chip in ((4, 3.0, "toy"), (64, 9.0, "ascend910b1")))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    compared = msdsim.compare("gemm:m=16,k=256,n=192", "toy", ["bf16", "dequant-int8", "msd-int8"], timeline=True, check=True)
    return {
        "compare": compared.html(), "run": compared.runs[1].html(), "explain": compared.runs[2].explain().html(),
        "workload": msdsim.simulate(TWO, "toy", "bf16").html(),
        "workloads": msdsim.compare(TWO, "toy", ["bf16", "msd-int8"]).html(),
        "tune": msdsim.tune(TWO, "toy", budget=3).html(), "accuracy": msdsim.accuracy(TWO, "normal").html(),
        "sweep": sweep_page(run_sweep({"problem": "gemm:m=4,k=64,n=96", "hw": "toy", "dataflow": ["bf16", "msd-int8"],
                                       "parameters": {"hbm.bandwidth_gbps": [32, 128], "l2.read_gbps": [64, 256]}}), "small"),
        "validate": validation_page(tmp_path_factory.mktemp("rows")),
    }


def validation_page(folder: Path) -> str:
    (folder / "rows.toml").write_text(ROWS, encoding="utf-8")
    assert run_program(["validate", str(folder / "rows.toml"), "--quiet", "--html", str(folder / "page.html")]) == 0
    return (folder / "page.html").read_text(encoding="utf-8")


CASES = [("compare", 1280, False), ("compare", 390, True), ("run", 390, False), ("explain", 390, False), ("workload", 390, True),
         ("workloads", 390, False), ("sweep", 390, True), ("validate", 390, True), ("sweep", 1280, False),
         pytest.param("tune", 390, True, marks=pytest.mark.slow), pytest.param("accuracy", 390, False, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "width", "dark"), CASES)
def test_in_a_browser(pages, tmp_path, name, width, dark):
    found = browse(pages[name], tmp_path, width, dark)
    assert found["errors"] == []
    assert found["console"] == []
    assert found["wide"] <= found["width"] == width
    assert found["links"]
    assert found["sections"] >= 3
    assert found["contrast"] >= 4.5, found["worst"]
    assert found["unreachable"] == 0
    assert found["folded"] == 0
    if name in ("run", "compare", "explain"):
        assert "GB/s" in found["curve"]
        before, after, back = found["zoom"]
        assert before == back != after
        assert (found["pressed"], found["left"]) == ("true", 0)
        assert found["dimmed"] > 0
        assert found["tip"]
    if name in ("sweep", "validate"):
        assert found["chart"]["pressed"] == "true"
        assert 0 < found["chart"]["dimmed"] < found["chart"]["points"]
        assert found["chart"]["focus"], "a point that has the focus says what it is"
    if name == "compare":
        numbers = [float(text.replace(",", "")) for text in found["up"]]
        assert numbers == sorted(numbers)
        assert found["down"] == found["up"][::-1]
        assert found["sorted"] == "descending"


def test_pages_are_small_and_fetch_nothing(pages):
    for page in pages.values():
        assert len(page.encode()) < 2_000_000
        assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
        assert "http" not in page
