import io

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tracegrad.lab.report.figures import study_figure
from tracegrad.lab.report.style import COLOURS, MARKERS, legend_below, look_of, to_png, to_svg
from tracegrad.lab.studies.collect import collect


@pytest.fixture
def figure(trained):
    (study,) = collect([trained])
    return study_figure(study)


def test_png_is_a_picture_and_svg_names_what_it_shows(figure):
    height, width, _ = imread(io.BytesIO(to_png(figure))).shape
    assert width > height > 500
    svg = to_svg(figure)
    for text in ("Spikes per test image (thousands)", "Test accuracy (%)", "tiny", "baseline (mean)", "one run"):
        assert text in svg


def test_same_numbers_give_the_same_files(trained):
    (study,) = collect([trained])
    first, second = study_figure(study), study_figure(study)
    assert to_png(first) == to_png(second)
    assert to_svg(first) == to_svg(second)


def test_methods_differ_in_colour_and_in_marker(figure):
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(COLOURS) == 7
    svg = to_svg(figure).lower()
    assert COLOURS[0].lower() in svg
    assert COLOURS[1].lower() in svg
    looks = [look_of(index) for index in range(49)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 49


def test_a_legend_of_many_long_names_stays_in_the_figure():
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for index in range(13):
        axes.plot([], [], label=f"a-method-with-a-long-name-{index}")
    legend_below(figure, columns=3)
    (legend,) = figure.legends
    figure.draw_without_rendering()
    extent = legend.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1, "the legend is cut off"
    assert len(legend.get_texts()) == 13
