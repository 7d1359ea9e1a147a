import io

from matplotlib.figure import Figure
from matplotlib.image import imread

from tracegrad.lab.report.style import COLOURS, MARKERS, accuracy_against, colour_of, legend_below, marker_of

SPIKES = {"baseline": [5.0, 5.5], "gradient-scale": [4.8, 5.1]}
ACCURACY = {"baseline": [98.0, 97.5], "gradient-scale": [98.5, 98.0]}


def test_png_is_a_picture_and_svg_names_what_it_shows():
    figure = accuracy_against("Spikes per image (thousands)", "digits", SPIKES, ACCURACY)
    height, width, _ = imread(io.BytesIO(figure["png"])).shape
    assert width > height > 500
    svg = figure["svg"].decode()
    for text in ("Spikes per image (thousands)", "Test accuracy (%)", "digits", "baseline (mean)", "one run"):
        assert text in svg


def test_same_numbers_give_the_same_files():
    assert accuracy_against("Spikes per image (thousands)", "d", SPIKES, ACCURACY) == accuracy_against(
        "Spikes per image (thousands)", "d", SPIKES, ACCURACY
    )


def test_methods_differ_in_colour_and_in_marker():
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(COLOURS) == 7
    svg = accuracy_against("Spikes per image (thousands)", "d", SPIKES, ACCURACY)["svg"].decode().lower()
    assert COLOURS[0].lower() in svg
    assert COLOURS[1].lower() in svg
    assert len({(colour_of(index), marker_of(index)) for index in range(49)}) == 49


def test_a_legend_of_many_long_names_stays_in_the_figure():
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for index in range(13):
        axes.plot([], [], label=f"a-method-with-a-long-name-{index}")
    legend_below(figure, *axes.get_legend_handles_labels(), columns=3)
    (legend,) = figure.legends
    figure.draw_without_rendering()
    extent = legend.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1, "the legend is cut off"
    assert len(legend.get_texts()) == 13
