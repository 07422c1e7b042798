"""The page: areas that fill the map, thousands of tensors in few elements, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.inspect_graph.html import MAX_OPEN, MAX_ROWS, render
from servegraph.inspect_graph.inspect import inspect
from servegraph.inspect_graph.inspection import Inspection
from servegraph.inspect_graph.text import render as render_text
from servegraph.inspect_graph.treemap import KINDS, MAX_AREAS, Part, layout, parts_of
from servegraph.inspect_graph.weights import weigh
from servegraph.machines.sizes import format_size
from servegraph.savedmodel.bundle_index import TensorEntry

MODELS = Path(__file__).parents[2] / "real_models"


@given(st.lists(st.integers(0, 10**12), max_size=60), st.integers(10, 2000), st.integers(10, 2000))
def test_areas_fill_the_map_without_overlap(sizes: list[int], width: int, height: int) -> None:
    parts = [Part(str(number), size, "read") for number, size in enumerate(sorted(sizes, reverse=True))]
    areas = layout(parts, width, height)
    total = sum(sizes)
    assert len(areas) == sum(size > 0 for size in sizes)
    # A sliver beside something 10^10 times its size is placed by a difference of nearly equal numbers, which leaves
    # few digits; a hundredth of a pixel is what nobody sees.
    seen = 0.01
    for area in areas:
        share = area.part.size_bytes / total * width * height
        assert area.width * area.height == pytest.approx(share, rel=1e-3, abs=seen**2)
        assert -seen <= area.x <= area.x + area.width <= width + seen
        assert -seen <= area.y <= area.y + area.height <= height + seen


def test_equal_areas_are_square() -> None:
    areas = layout([Part(str(number), 1, "read") for number in range(16)], 400, 400)
    assert all(area.width == pytest.approx(100) and area.height == pytest.approx(100) for area in areas)


def many_tensors(count: int) -> Inspection:
    tensors = tuple(
        TensorEntry(f"layer_{n}/kernel", "float32", (n + 1,), 0, n * 10**6, 4 * n + 4, n) for n in range(count)
    )
    sound = inspect(str(MODELS / "keras_dense"))
    return sound._replace(tensors=tensors, weights=weigh({entry.key: entry for entry in tensors}), readers={})


def test_a_page_of_five_thousand_tensors_stays_small() -> None:
    inspection = many_tensors(5000)
    page = render(inspection)
    assert len(parts_of(inspection)) <= MAX_AREAS + 7  # what is put together, by kind
    assert page.count("<rect") <= MAX_AREAS + 7
    assert page.count("<tr>") <= MAX_ROWS + 700
    assert len(page) < 400_000
    assert "The 500 largest of 5,000." in page


def test_all_bytes_are_on_the_map() -> None:
    for name in ("module", "v1_partitioned", "keras_dense"):
        inspection = inspect(str(MODELS / name))
        index = MODELS / name / "variables/variables.index"
        assert sum(part.size_bytes for part in parts_of(inspection)) == inspection.size_bytes - index.stat().st_size


@pytest.mark.parametrize(("count", "is_open"), [(MAX_OPEN, True), (MAX_OPEN + 1, False)])
def test_many_signatures_are_folded_to_their_names(count: int, *, is_open: bool) -> None:
    sound = inspect(str(MODELS / "keras_dense"))
    assert sound.graph is not None
    meta_graph = sound.graph.meta_graphs[0]
    signature = meta_graph.signatures["serving_default"]
    many = meta_graph._replace(signatures={f"number {number}": signature for number in range(count)})
    page = render(sound._replace(graph=sound.graph._replace(meta_graphs=(many,))))
    assert page.count('<details class="signature"') == count
    assert page.count('<details class="signature" open>') == (count if is_open else 0)


@pytest.mark.parametrize("name", ["module", "v1_partitioned", "unsafe", "keras_saved"])
def test_the_page_stands_alone(name: str) -> None:
    inspection = inspect(str(MODELS / name))
    page = render(inspection)
    assert not re.search(r'(src|href)="', page)
    assert page.index("Findings") < page.index("Where the bytes are") < page.index("Tensors")
    for item in inspection.findings:
        assert item.code in page
    for meta_graph in inspection.tag_sets:
        assert f"[{', '.join(meta_graph)}]" in page


def test_optimizer_state_and_unread_tensors_have_their_own_colours() -> None:
    assert 'fill="var(--optimizer)"' in render(inspect(str(MODELS / "v1_adam")))
    assert 'fill="var(--unread)"' in render(inspect(str(MODELS / "module")))


def test_text_and_page_have_the_same_sizes() -> None:
    inspection = inspect(str(MODELS / "module"))
    for size_bytes in (inspection.size_bytes, inspection.memory_bytes):
        assert size_bytes is not None
        assert format_size(size_bytes) in render_text(inspection)
        assert format_size(size_bytes) in render(inspection)


def test_the_text_says_what_there_is() -> None:
    text = render_text(inspect(str(MODELS / "v1_partitioned")))
    assert "MetaGraph [serve, gpu]" in text
    assert "→ ids  int64 [None]" in text
    assert "Nothing found wrong" in text
    text = render_text(inspect(str(MODELS / "unsafe"), verify=True), lambda words, colour: f"<{colour}>{words}</>")
    assert "<red>error  </> UNSAFE_OP" in text
    assert "checksums compared" in text


def _luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    values = [int(digits, 16) / 255 for digits in re.findall("..", colour)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_labels_of_the_map_can_be_read_on_every_colour() -> None:
    page = render(inspect(str(MODELS / "module")))
    found = re.search(r"\.map text {.*? fill: #(\w{3});", page)
    assert found is not None
    label = _luminance("".join(2 * digit for digit in found[1]))
    for kind in KINDS:
        colour = re.search(rf"--{kind}: #(\w{{6}})", page)
        assert colour is not None
        assert (_luminance(colour[1]) + 0.05) / (label + 0.05) >= 4.5


def test_findings_on_the_page_have_no_number_of_a_requirement() -> None:
    inspection = inspect(str(MODELS / "module"))
    assert inspection.findings
    assert all(item.requirement not in render(inspection) for item in inspection.findings)


def test_a_request_is_said_to_be_copied_only_after_it_was() -> None:
    script = render(inspect(str(MODELS / "module"))).partition("<script>")[2]
    assert script.index("await navigator.clipboard.writeText") < script.index('"copied"') < script.index("catch")
