import csv
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tracegrad.lab.data import DataOptions
from tracegrad.lab.recipe.parts import Model
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.report.comparing import differences_table, images_table
from tracegrad.lab.report.tables import study_table
from tracegrad.lab.report.writing import write_report
from tracegrad.lab.studies.collect import collect

FIGURES = ["spikes", "learning", "rates", "relation-1", "scale-1", "picture", "raster"]
EMPTY = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers what a reader and a browser see."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.figures, self.attributes, self.text, self.rows = [], [], [], [], "", []
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag, attributes):
        if tag not in EMPTY:
            self.open.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag == "figure":
            self.figures.append(dict(attributes)["id"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    return write_report([trained], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text(encoding="utf-8"))


def test_every_figure_is_there(page):
    assert page.figures == [f"tiny-{name}" for name in FIGURES]
    assert page.text.count("Left out") == 0


def test_figures_have_labelled_axes_with_units(page):
    for label in (
        "Spikes per test image (thousands)",
        "Test accuracy (%)",
        "Training loss",
        "Validation accuracy (%)",
        "Firing rate (spikes per neuron and time step)",
        "Scale of the gradient",
        "Pre-synaptic channel",
        "Time step",
    ):
        assert label in page.text


def test_the_page_needs_nothing_from_outside(report, page):
    assert "http:" not in report.read_text()
    assert "https:" not in report.read_text()
    for name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,")), f"{name}={value[:60]}"
    assert "<script" not in report.read_text()


def test_ids_are_unique_and_references_lead_somewhere(report, page):
    assert len(page.ids) == len(set(page.ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', report.read_text())
    assert set(references) <= set(page.ids)


def test_colours_follow_the_theme(report):
    text = report.read_text()
    assert "prefers-color-scheme: dark" in text
    for sentinel in ("#010203", "#040506", "#070809"):
        assert sentinel not in text


def test_tables_are_those_of_the_study(report, trained, page):
    for ours, theirs in (("results", "table"), ("differences", "differences")):
        expected = (trained / f"{theirs}.csv").read_text()
        assert report.with_name(f"report-tiny-{ours}.csv").read_text() == expected
        for row in csv.reader(expected.splitlines()):
            assert row in page.rows
    assert (trained / "table.md").read_text().splitlines()[0] in report.with_suffix(".md").read_text()


def test_firing_rates_are_spikes_per_neuron_and_step(report, trained):
    with report.with_name("report-tiny-rates.csv").open() as file:
        rates = {row["Layer"]: float(row["baseline"]) for row in csv.DictReader(file)}
    (study,) = collect([trained])
    counts = [run.result["spikes_per_layer"]["neuron"] for run in study.of("baseline")]
    assert rates["neuron"] == pytest.approx(sum(counts) / 2 / (4 * 8 * 8 * 4), abs=6e-4)
    assert all(0 <= rate <= 1 for rate in rates.values())


def test_the_recipe_beside_it_repeats_the_runs(report, recipe, page):
    assert load_recipe(str(report.with_name("report-tiny.yaml"))) == recipe
    assert "tracegrad study report-tiny.yaml" in page.text


def test_versions_and_options_are_told(page):
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["alpha"] == ["0.0", "0.1"]
    assert {"python", "torch", "cores"} <= rows.keys()


def test_without_a_probe_its_parts_are_left_out(study, tmp_path):
    for name in ("relations.csv", "probe.npz"):
        for path in study.glob(f"*/*/{name}"):
            path.unlink()
    page = Page(write_report([study], tmp_path / "report.html").read_text())
    assert page.figures == ["tiny-spikes", "tiny-learning", "tiny-rates"]
    assert page.text.count("Left out: no run of this study recorded") == 3


def test_an_unfinished_run_is_listed(study, tmp_path):
    (study / "gradient-scale/seed-1/result.json").unlink()
    page = Page(write_report([study], tmp_path / "report.html").read_text())
    assert "Not finished, and not counted: gradient-scale, seed 1 (2 epochs)." in page.text
    assert len(page.figures) == len(FIGURES)


def test_a_single_run(trained, tmp_path):
    page = Page(write_report([trained / "baseline/seed-0"], tmp_path / "report.html").read_text())
    assert page.figures == [f"tiny-{name}" for name in ("spikes", "learning", "rates", "raster")]
    assert "nothing to compare it with" in page.text


def test_several_studies(trained, study, tmp_path):
    for config in study.glob("*/*/config.yaml"):
        config.write_text(config.read_text().replace("name: tiny", "name: other").replace("leak: 0.9", "leak: 0.8"))
    page = Page(write_report([trained, study], tmp_path / "report.html").read_text())
    assert len(page.figures) == 2 * len(FIGURES)
    assert ["model.neuron.leak", "0.9", "0.8"] in page.rows
    assert (tmp_path / "report-other-results.csv").is_file()


def test_names_are_text_not_markup(study, tmp_path):
    for config in study.glob("*/*/config.yaml"):
        config.write_text(config.read_text().replace("gradient-scale:", "$a_b$ & 'c':"))
    page = Page(write_report([study], tmp_path / "report.html").read_text())
    assert "$a_b$ & 'c'" in [row[0] for row in page.rows if row]


def test_a_chosen_synapse(trained, tmp_path):
    page = Page(write_report([trained], tmp_path / "report.html", synapse="stages.0.0.shortcut").read_text())
    assert "Relation of stages.0.0.shortcut" in page.text
    with pytest.raises(ValueError, match=r"unknown synapse 'conv'; the runs recorded stages\.0\.0\.conv1, "):
        write_report([trained], tmp_path / "report.html", synapse="conv")


def test_the_page_is_html(trained, tmp_path):
    with pytest.raises(ValueError, match="ends in .html"):
        write_report([trained], tmp_path / "report.md")
    assert not list(tmp_path.iterdir())


def test_the_same_runs_give_the_same_page(report, trained, tmp_path):
    assert write_report([trained], tmp_path / "report.html").read_bytes() == report.read_bytes()


def test_the_papers_numbers_stand_beside_ours(trained):
    (study,) = collect([trained])
    model = Model("resnet20", neuron=study.recipe.model.neuron)
    ours = replace(study, recipe=replace(study.recipe, data=DataOptions("cifar10"), model=model))
    assert study_table(ours).rows[2:] == (
        ("baseline (Park et al. 2023)", "soft", "94.91", "94.97", "–", "497.00", "520.00", "–"),
        ("gradient-scale (Park et al. 2023)", "soft", "95.05", "95.11", "–", "492.00", "506.00", "–"),
    )
    assert differences_table(ours).rows[1][1:] == ("+0.14", "–", "–", "-5.00", "–", "–", "–", "–")


def test_differences_over_seeds_and_images_are_those_of_the_runs(trained):
    (study,) = collect([trained])
    (row,) = images_table(study).rows
    mean, low, high = map(float, row[1:])
    assert row[0] == "gradient-scale - baseline"
    assert mean == pytest.approx(float(differences_table(study).rows[0][1]), abs=0.011)
    assert low <= mean <= high
    without = {key: replace(run, test={}) for key, run in study.runs.items()}
    assert not images_table(replace(study, runs=without)).rows
