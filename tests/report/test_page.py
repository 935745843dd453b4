"""The report page: complete, self-contained, safe against what models write."""

from __future__ import annotations

import base64
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic import comparison

from warmstart.evaluation.results import ComparisonResult, Saving
from warmstart.report import export_plots, render_report, write_report, write_run_report

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags and text and checks that every tag is closed where it was opened."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def result() -> ComparisonResult:
    return comparison()


@pytest.fixture(scope="module")
def source(result: ComparisonResult) -> str:
    return render_report(result)


def test_every_part_of_the_result_is_on_the_page(result: ComparisonResult, source: str) -> None:
    page = Page(source)
    assert not page.open
    wanted = [
        result.sentence,
        result.title,
        result.sample_before,
        result.date,
        "partly reproduced",
        "What this means",
    ]
    wanted += [arm.sample for arm in result.arms] + [arm.description for arm in result.arms]
    wanted += [part for claim in result.claims for part in (claim.text, claim.measured)]
    wanted += [
        *result.data,
        *result.data.values(),
        "transplant",
        "captions-en",
        "de-bpe-8k",
        "AMD EPYC",
        "wechsel",
    ]
    wanted += [f"{arm.final_bpb.mean:.3f}" for arm in result.arms] + [
        "warmup_stable_decay",
        "max_tokens: 819200",
    ]
    missing = [text for text in wanted if text not in page.text]
    assert not missing
    assert page.text.index(result.sentence) < page.text.index("Loss curves")


def test_the_page_needs_nothing_from_outside(source: str) -> None:
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed"), tag
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value[:80])
    assert "@import" not in source
    assert not re.findall(r"url\((?!#)", source)
    assert "default-src 'none'" in source
    assert len(source.encode()) < 1_500_000


def test_text_of_models_and_people_is_never_markup(result: ComparisonResult) -> None:
    nasty = (
        "</pre><script>alert(1)</script><img src=http://x.example/y onerror=alert(2)> $\\frac{1}$ {{ 7*7 }}"
    )
    nasty += " ]]> \x00"
    arms = [
        arm.model_copy(update={"name": f"{arm.name}{nasty}", "sample": nasty, "description": nasty})
        for arm in result.arms
    ]
    changed = result.model_copy(
        update={
            "arms": arms,
            "baseline": arms[0].name,
            "title": nasty,
            "sentence": nasty,
            "settings": {nasty: nasty},
            "data": {nasty: nasty},
            "tables": [{"title": nasty, "columns": [nasty], "rows": [[nasty]]}],
            "lineage": {"operation": nasty, "parents": [{"name": nasty}]},
        }
    )
    page = Page(render_report(changed))
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert page.text.count("<script>alert(1)</script>") > 10


def test_ids_are_unique_and_drawings_are_described(source: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r"url\(#([^)]+)\)", source) + re.findall(r'href="#([^"]+)"', source):
        assert reference in ids
    drawings = re.findall(r"<svg.*?</svg>", source, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        root = ET.fromstring(drawing)
        names = root.attrib["aria-labelledby"].split()
        assert all(f'id="{name}"' in drawing for name in names)
        assert "scratch" in drawing
        assert not re.search(r"#00(00|01)[0-9a-f]{2}", drawing), "a stand-in colour was left"


def test_both_colour_schemes_are_readable(source: str) -> None:
    light, dark = re.search(
        r":root \{(.*?)\}.*?dark\) \{\s*:root \{(.*?)\}", source, flags=re.DOTALL
    ).groups()
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name, colour in colours.items():
            if name.startswith("arm-") or name in ("ink", "muted", "base", "link"):
                assert contrast(colour, colours["page"]) >= 4.5, (name, colour)
        for name in ("good", "mixed", "bad"):
            assert contrast(colours[name], colours[f"{name}-bg"]) >= 4.5


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_downloads_are_what_they_say(result: ComparisonResult, source: str, tmp_path: Path) -> None:
    pictures = [
        base64.b64decode(data) for data in re.findall(r'href="data:image/png;base64,([^"]+)"', source)
    ]
    exported = export_plots(result, tmp_path / "plots")
    assert [path.name for path in exported] == ["curves.png", "savings.png"]
    assert pictures == [path.read_bytes() for path in exported]
    assert all(data.startswith(b"\x89PNG") for data in pictures)
    numbers = base64.b64decode(re.search(r'href="data:application/json;base64,([^"]+)"', source)[1])
    assert ComparisonResult.model_validate_json(numbers) == result


def test_the_same_result_gives_the_same_page(result: ComparisonResult, source: str, tmp_path: Path) -> None:
    path = write_report(result, tmp_path / "deep" / "report.html")
    assert path.read_text(encoding="utf-8") == source


def test_a_failed_warm_start_is_told_plainly(result: ComparisonResult) -> None:
    never = [Saving(axis=a, reached=False, cost=None, ratio=None) for a in ("tokens", "flops", "seconds")]
    scratch = result.arms[0]
    arms = [a if a is scratch else a.model_copy(update={"savings": never}) for a in result.arms]
    slow = [c.model_copy(update={"points": c.points[:-3], "seed": i}) for i, c in enumerate(scratch.curves)]
    arms[1] = arms[1].model_copy(update={"curves": [*result.arms[1].curves[:2], slow[2]]})
    arms[2] = arms[2].model_copy(update={"curves": slow})
    changed = result.model_copy(update={"arms": arms, "verdict": "not reproduced"})
    text = Page(render_report(changed)).text
    assert "saved nothing that can be shown" in text
    assert text.count("neverwithin its budget") == 3
    assert text.count("2 of 3 seedswithin its budget") == 3
    assert "✗ not reproduced" in text


def test_a_prompt_is_shown_once(result: ComparisonResult) -> None:
    prompt = "Es war einmal"
    arms = [arm.model_copy(update={"sample": prompt + " ein Modell."}) for arm in result.arms]
    changed = result.model_copy(update={"arms": arms, "sample_prompt": prompt, "sample_before": prompt + "!"})
    text = Page(render_report(changed)).text
    assert text.count(prompt) == len(arms) + 1
    assert text.count(prompt + " ein Modell.") == len(arms)


def test_one_seed_is_called_one_seed() -> None:
    text = Page(render_report(comparison(seeds=(0,)))).text
    assert "Only one seed was run" in text
    assert "±" not in text


def test_curves_with_holes_and_other_grids_are_drawn(result: ComparisonResult) -> None:
    arm = result.arms[1]
    first, second, *rest = arm.curves
    holed = first.model_copy(
        update={
            "points": [
                p.model_copy(update={"bpb": math.nan if i == 3 else p.bpb})
                for i, p in enumerate(first.points)
            ]
        }
    )
    thinned = second.model_copy(update={"points": second.points[::2]})
    changed = arm.model_copy(update={"curves": [holed, thinned, *rest]})
    source = render_report(result.model_copy(update={"arms": [result.arms[0], changed]}))
    assert "NaN" not in source.partition("</main>")[0]


def test_a_plain_training_run_has_a_page_too(tmp_path: Path) -> None:
    curve = comparison().arms[3].curves[0]
    path = write_run_report(
        curve, tmp_path / "run.html", title="My run", name="mine", sample="written", date="2026-01-02"
    )
    text = Page(path.read_text(encoding="utf-8")).text
    assert "My run" in text
    assert "written" in text
    assert f"{curve.final:.3f}" in text
    assert "What it cost to get there" not in text
