"""The gallery: output sizes, findings, run id and pages."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas.files import write_json
from convatlas.gallery.findings import list_findings
from convatlas.gallery.network_data import format_output_size, summarize_matches
from convatlas.gallery.run_info import compute_run_id
from convatlas.results import Results
from tests.support.fake_results import (
    VIEWS,
    FakeResults,
    make_layer,
    make_match,
    make_minimal_results,
    make_results,
)
from tests.support.site import CONFIG, HOSTILE_TEXT, TIMING, PageParser, build_site, write_network
from tests.support.workspace import ROOT

# Output sizes


def make_window_layer(
    size: int, kernel: int, stride: int, padding: int, dilation: int, result: int
) -> dict[str, Any]:
    window = {
        "kernel": [9, kernel],
        "stride": [9, stride],
        "padding": [9, padding],
        "dilation": [9, dilation],
    }
    return make_layer("conv", "conv", (3, 9, size), (4, 9, result), **window)


def count_positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Count the positions at which the window is inside the padded line."""
    count, start = 0, -padding
    while all(-padding <= start + dilation * tap < size + padding for tap in range(kernel)):
        count, start = count + 1, start + stride
    return count


def test_the_output_size_is_the_number_of_window_positions() -> None:
    cases = itertools.product((5, 6, 7, 28, 33), (1, 2, 3, 5), (1, 2, 3, 4), (0, 1, 2), (1, 2, 3))
    cases_with_size = [(case, count_positions(*case)) for case in cases]
    assert len([case for case, result in cases_with_size if result]) > 500
    for case, result in cases_with_size:
        if result:
            size, kernel, stride, padding, dilation = case
            expected = f"⌊({size} + 2·{padding} − {dilation}·({kernel} − 1) − 1) / {stride}⌋ + 1 = {result}"
            assert format_output_size(make_window_layer(*case, result)) == expected
            assert (
                format_output_size(make_window_layer(*case, result + 1)) is None
            )  # as where it is rounded up


def test_layers_without_a_window_have_no_formula() -> None:
    layer = make_window_layer(8, 3, 1, 1, 1, 8)
    assert format_output_size(layer)
    for change in ({"kernel": None}, {"called": False}, {"output_shape": [32]}):
        assert format_output_size(layer | change) is None
    assert format_output_size(layer | {"dilation": None})  # average pooling has none


@pytest.mark.parametrize(
    "change",
    [{"padding": "same"}, {"padding": "valid"}, {"padding": None}, {"stride": None}],
    ids=lambda change: str(*change.values()),
)
def test_layers_with_other_padding_or_stride_do_not_fail(change: dict[str, Any]) -> None:
    """As of a convolution with padding="same", or of nn.LPPool2d."""
    result = 6 if change == {"padding": "valid"} else 8
    formula = format_output_size(make_window_layer(8, 3, 1, 1, 1, result) | change)
    assert formula is None or formula.endswith(f" = {result}")


# Findings


def confusion(*errors: tuple[int, int, int]) -> dict[str, Any]:
    counts = np.diag([20, 20, 20, 20])
    for true, predicted, count in errors:
        counts[true, predicted] = count
    return {"confusion": counts.tolist()}


def list_findings_with(folder: Path, results: FakeResults, metrics: dict[str, Any]) -> list[str]:
    results.metrics = metrics
    return list_findings(Results(results.write(folder / "own")))


def make_results_without_findings() -> FakeResults:
    """Return results in which a sixth of the activations is zero, but of no unit all."""
    results = make_results()
    for outputs in results.activations.values():
        for name in ("relu", "relu:2", "relu_2"):
            outputs[name] = np.abs(outputs[name]) + 1
            outputs[name].flat[::6] = 0
    return results


def test_the_most_frequent_confusion(tmp_path: Path) -> None:
    metrics = confusion((0, 1, 2), (2, 3, 5), (3, 2, 4))
    (finding,) = list_findings_with(tmp_path, make_results_without_findings(), metrics)
    assert finding == ("Most frequent confusion: cat → dog (5 of 11 errors on 91 test images).")


@pytest.mark.parametrize(
    "metrics", [{}, confusion(), confusion((0, 1, 1)), confusion((0, 1, 3), (1, 0, 3)), {"mean_iou": 0.5}]
)
def test_there_are_no_findings_on_a_network_without_errors(tmp_path: Path, metrics: dict[str, Any]) -> None:
    """Nor where two confusions are equally frequent, or there is one error."""
    assert list_findings_with(tmp_path, make_results_without_findings(), metrics) == []


def test_inactive_units(tmp_path: Path) -> None:
    results = make_results_without_findings()
    for outputs in results.activations.values():
        outputs["relu:2"][[4, 11]] = 0
        outputs["relu_2"][7, :, :3] = 0  # in part
    results.activations["first"]["relu"][1] = 0  # on one image only
    assert list_findings_with(tmp_path, results, {}) == [
        "2 of 18 units in relu:2 are inactive on all 2 sample images: 4, 11."
    ]


def test_one_inactive_unit_and_the_sparsest_layer(tmp_path: Path) -> None:
    results = make_results_without_findings()
    for outputs in results.activations.values():
        outputs["relu"][[2]] = 0
        outputs["relu_2"][:, :, :5] = 0
    share = np.mean([outputs["relu_2"] == 0 for outputs in results.activations.values()])
    assert list_findings_with(tmp_path, results, {}) == [
        "1 of 5 units in relu is inactive on all 2 sample images: 2.",
        f"relu_2 has the sparsest activations: {100 * share:.0f} % are zero on the sample images.",
    ]


def test_at_most_twelve_units_and_three_findings_are_listed(tmp_path: Path) -> None:
    results = make_results_without_findings()
    for outputs in results.activations.values():
        outputs["relu"][2] = outputs["relu:2"][1:15] = outputs["relu_2"][1:15] = 0
    findings = list_findings_with(tmp_path, results, confusion((0, 1, 9)))
    assert len(findings) == 3
    assert findings[0].startswith("Most frequent confusion")
    assert findings[2].endswith(": 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and others.")


# Run id


def test_the_run_id_follows_config_weights_and_versions_alone(tmp_path: Path) -> None:
    def compute_id(config: dict[str, Any] = CONFIG, **network: Any) -> str:
        results = make_results()
        results.network |= network
        write_network(tmp_path, "own", results)
        return compute_run_id(config, [Results(tmp_path / "results/own").network])

    first = compute_id()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert compute_id() == first
    changed_ids = [
        compute_id(CONFIG | {"seed": 1}),
        compute_id(weights={"origin": "trained here", "sha256": "ef" * 32}),
        compute_id(versions={"convatlas": "0.1.0", "numpy": "2.1"}),
    ]
    assert len({first, *changed_ids}) == 4
    later = TIMING | {"finished": "2002-02-03T04", "training_seconds": 9}
    write_network(tmp_path, "own")
    write_json(tmp_path / "results/own/timing.json", later)
    assert compute_run_id(CONFIG, [Results(tmp_path / "results/own").network]) == first


# Pages


def test_the_pages_and_their_links(tmp_path: Path) -> None:
    for name in ("own", "other"):
        write_network(tmp_path, name)
    site = build_site(tmp_path, "own", "other")
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    assert {"index.html", "networks/other.html", "networks/own.html", "provenance.html"} <= {*pages}
    assert not list((site / "figures").rglob("*.json"))
    for name in pages:
        page = PageParser(site / name)
        for link in page.links:
            if not link.startswith(("http", "#")):
                assert ((site / name).parent / link.partition("#")[0]).is_file(), link
        assert "An atlas" in page.text
        assert ("2001" in page.text) == (name == "provenance.html")
    own = PageParser(site / "networks/own.html")
    assert "Optimiser AdamW" in own.text
    assert [src for image in own.images if "figures" in (src := str(image["src"]))] == [
        f"../figures/own/{file}" for file in ("cover-1.png", "maps-2.png", "deconv-3.png")
    ]
    assert "Figure 2. own. What maps shows of conv1." in own.text


def test_building_twice_gives_the_same_bytes_and_drops_a_network_that_is_gone(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    write_network(tmp_path, "other")

    def files(*names: str) -> dict[str, bytes]:
        site = build_site(tmp_path, *names)
        return {str(p.relative_to(site)): p.read_bytes() for p in site.rglob("*") if p.is_file()}

    alone, both = files("own"), files("own", "other")
    own = {name for name in alone if re.search(r"\bown\b", name)}
    assert {"networks/own.html", "networks/own-errors.html", "figures/own/maps-2.png"} <= own
    assert both.keys() - alone.keys() == {name.replace("own", "other") for name in own}
    assert files("own") == alone


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    results = make_results()
    results.network["classes"] = ["ant", "bee", HOSTILE_TEXT, "dog"]
    results.network["architecture"] = HOSTILE_TEXT
    results.metrics["class_accuracy"] = {HOSTILE_TEXT: 0.5}
    results.metrics["confusion"][2][1] = 3
    results.layers[0] |= {"name": HOSTILE_TEXT, "module": HOSTILE_TEXT}
    results.images[0]["path"] = HOSTILE_TEXT
    write_network(tmp_path, "own", results, subject=HOSTILE_TEXT)
    site = build_site(tmp_path, "own", config=CONFIG | {"title": HOSTILE_TEXT})
    for path in site.rglob("*.html"):
        page = PageParser(path)
        assert HOSTILE_TEXT in page.text, path
        assert "<img onerror" not in path.read_text()
        assert not [image for image in page.images if "onerror" in image], path
    assert f"confusion: {HOSTILE_TEXT} → bee" in PageParser(site / "networks/own.html").text


def test_a_network_that_was_not_trained_or_tested(tmp_path: Path) -> None:
    results = make_results()
    results.metrics, results.history = {}, results.history.splitlines(keepends=True)[0]
    write_network(tmp_path, "own", results)
    site = build_site(tmp_path, "own")
    for name in ("index.html", "networks/own.html"):
        assert "accuracy" not in PageParser(site / name).text


def test_the_page_says_from_which_precision_a_network_was_converted(tmp_path: Path) -> None:
    results = make_minimal_results()
    results.network["converted_from"] = "bfloat16"
    write_network(tmp_path, "own", results)
    page = PageParser(build_site(tmp_path, "own") / "networks/own.html").text
    assert "converted from bfloat16 and computed in float32" in page


def test_a_network_with_weights_but_no_data_set(tmp_path: Path) -> None:
    """As torchvision's: nothing was trained, and nothing is known of what it was trained on."""
    write_network(tmp_path, "own", make_minimal_results())
    site = build_site(tmp_path, "own")
    page = PageParser(site / "networks/own.html").text
    assert "with the weights IMAGENET1K_V1" in page and "Not trained in this run." in page
    assert "Animals" not in page + PageParser(site / "index.html").text
    assert "IMAGENET1K_V1" in PageParser(site / "provenance.html").text


def test_sample_images_without_predictions_have_no_such_columns(tmp_path: Path) -> None:
    results = make_results()
    for image in results.images:
        image |= {"label": 0, "prediction": None, "probability": None}
    write_network(tmp_path, "own", results)
    text = (build_site(tmp_path, "own") / "networks/own.html").read_text()
    table = text.partition('aria-label="Table of sample images"')[2].partition("</table>")[0]
    assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table) == ["image", "source", "label"]


def test_the_page_names_every_class_that_a_multi_label_network_predicts(tmp_path: Path) -> None:
    results = make_results()
    results.network["output"] |= {"kind": "multi-label"}
    predicted = [{"class": 2, "probability": 0.75}, {"class": 0, "probability": 0.625}]
    results.images[0]["predictions"], results.images[1]["predictions"] = predicted, []
    write_network(tmp_path, "own", results)
    table = PageParser(build_site(tmp_path, "own") / "networks/own.html").text
    table = " ".join(table[table.index("Sample images") :].split())
    assert "cat (75.0 %), ant (62.5 %)" in table
    assert "no class above 50 %, most probable dog (75.0 %)" in table


def test_the_navigation_is_grouped(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    text = (build_site(tmp_path, "own") / "primer.html").read_text()
    groups = re.findall(r"<summary.*?>(.*?)</summary>\s*<ul>(.*?)</ul>", text, re.DOTALL)
    assert [(name, re.findall(r">([^<>]*)</a>", links)) for name, links in groups] == [
        ("Networks", ["own"]),
        ("Analyses", ["Classical operators"]),
        ("Data", ["animals"]),
        ("Help", ["Primer", "Glossary", "Cite", "Provenance"]),
    ]


def test_the_versions_are_in_their_columns(tmp_path: Path) -> None:
    for name, more in (("own", {}), ("other", {"torchvision": "0.29.2"})):
        results = make_results()
        results.network["versions"] = {"convatlas": "0.1.0", "numpy": "2.1", **more}
        write_network(tmp_path, name, results)
    text = (build_site(tmp_path, "own", "other") / "provenance.html").read_text()
    table = text.partition('aria-label="Library versions per network"')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    assert [row[:-1] for row in rows] == [
        ["network", "convatlas", "numpy", "torchvision"],
        ["own", "0.1.0", "2.1", "–"],
        ["other", "0.1.0", "2.1", "0.29.2"],
    ]
    assert "2001-02-03 04:05 UTC" in text


@pytest.mark.parametrize("rectify", [False, True])
def test_the_page_says_where_the_deconvnet_is_a_heuristic(tmp_path: Path, rectify: bool) -> None:
    write_network(tmp_path, "own")
    views = VIEWS | {"deconv": VIEWS["deconv"] | {"rectify": rectify}}
    site = build_site(tmp_path, "own", config=CONFIG | {"networks": {"own": {"views": views}}})
    assert (
        "treat these projections as a heuristic" in PageParser(site / "networks/own.html").text
    ) is rectify


def test_matching_units_are_counted_and_the_best_matches_named(tmp_path: Path) -> None:
    results = make_results()
    results.unit_matches["conv1"]["units"][1:3] = [make_match("harris", 0.9), make_match("lbp", -0.7)]
    write_network(tmp_path, "own", results)
    matches = summarize_matches(Results(tmp_path / "results/own").unit_matches)
    assert matches.threshold == 0.5
    counts = [(row.layer, row.units, row.n_matched) for row in matches.rows]
    assert counts == [("conv1", 5, 4), ("relu", 5, 1), ("block.conv2", 18, 0)]
    assert [unit for unit, _ in matches.rows[0].top_matches] == [1, 0, 2]
    page = PageParser(build_site(tmp_path, "own") / "networks/own.html").text
    assert "1 corner (0.90), 0 vertical edge (−0.83), 2 local binary pattern (−0.70)" in page


def test_several_figures_of_one_image_have_one_heading(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    file = tmp_path / "results/own/figures/figures.json"
    figures = json.loads(file.read_text())
    write_json(file, [*figures, figures[-1] | {"file": "cover-1.png"}])
    text = (build_site(tmp_path, "own") / "networks/own.html").read_text()
    assert text.count("<h3>cat, test image 0</h3>") == 1 and text.count("What deconv shows of first.<") == 2


def test_images_without_a_label_or_a_prediction(tmp_path: Path) -> None:
    """images.json has null where it does not apply, as for a network that segments."""
    results = make_results()
    nothing = dict.fromkeys(("index", "label", "prediction", "probability"))
    results.images = [image | nothing | {"path": "some/where/cat.png"} for image in results.images]
    write_network(tmp_path, "own", results)
    assert "cat.png" in PageParser(build_site(tmp_path, "own") / "networks/own.html").text


def test_the_gallery_imports_no_torch(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "finally: print('torch' in sys.modules)\n"
    )
    config = CONFIG | {"networks": {"own": {"views": VIEWS}}}
    script = [str(ROOT / "scripts/gallery.py"), "--settings", json.dumps(config), "--output", "site"]
    command = [sys.executable, "-c", program, *script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    assert (tmp_path / "site/index.html").is_file()
