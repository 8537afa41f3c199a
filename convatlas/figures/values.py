"""Figures of layers without spatial axes: bars, heat maps, and tokens."""

import numpy as np

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import make_colour_bar, make_tile
from convatlas.image_io import count_averaged, draw_rows
from convatlas.names import list_predicted_classes
from convatlas.plotting import charts
from convatlas.plotting.colormap import NON_FINITE_NOTES, ColourScale, LayerScales, find_non_finite
from convatlas.plotting.montage import TileRow


def draw_values(context: FigureContext, layer: str) -> CaptionedFigure:
    """Draw the values of a layer as bars where there are few units, else as heat maps.

    Args:
        context: The network's results and views.
        layer: Name of a layer whose output has no spatial axes, or only axes of length 1.

    Returns:
        A figure of kind "values"; predictions are marked where the values number as many as the classes.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    values = np.stack([output.ravel() for output in context.outputs(layer)])
    count, classes = values.shape[1], context.network["classes"]
    titles = [context.describe_image(image, "   ") for image in context.images]
    has_classes = count == len(classes)
    predictions = [list_predicted_classes(image) if has_classes else [] for image in context.images]
    marked = "predictions are" if max(map(len, predictions)) > 1 else "prediction is"
    has_predictions = any(predictions)
    line = f"{layer}: {count:,} {'activation' if count == 1 else 'activations'} on {context.image_phrase}"
    text = f"Outputs of {layer} ({context.layers[layer]['type']}) on {context.image_list}. "
    if count > charts.MAX_LABELLED:
        scale = ColourScale.from_values(values)
        row_length = charts.choose_row_length(count)
        rows = f"Rows of {row_length} units" if count > row_length else "All units in one row"
        framed = f"; the {marked} framed." if has_predictions else "."
        notes = [NON_FINITE_NOTES[name] for name in find_non_finite(values)]
        text = f"{text}{rows}, from left to right; {scale.description}{framed}"
        caption = Caption(f"{line}, {scale.extent}", " ".join([text, *notes]))
        figure = charts.plot_unit_heatmaps(values, titles, scale, predictions, context.format_line(caption))
    else:
        coloured = f"; the {marked} coloured." if has_predictions else "."
        caption = Caption(line, f"{text}All charts share one axis{coloured}")
        names = classes if has_classes else [str(unit) for unit in range(count)]
        figure = charts.plot_unit_bars(values, names, titles, predictions, context.format_line(caption))
    return context.make_figure("values", layer, caption, figure)


def draw_tokens(context: FigureContext, layer: str) -> CaptionedFigure:
    """Draw rows: the vectors of a transformer's layer, or the units of a network of audio or series.

    Args:
        context: The network's results and views.
        layer: Name of a layer whose output is (vectors, values), or (units, L).

    Returns:
        A figure of kind "values"; all tiles share one colour scale.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    has_positions = (
        context.input_axes == 1
    )  # neighbouring values of a row are those of neighbouring positions
    outputs = context.outputs(layer)
    if has_positions:
        outputs = [draw_rows(output) for output in outputs]
    scales = LayerScales("per_layer", {layer: outputs})
    names = [image["name"] for image in context.images]
    rows: list[TileRow] = [
        [context.make_input_tile(name), make_tile(scales, layer, output, "")]
        for name, output in zip(names, outputs, strict=True)
    ]
    shape = context.layers[layer]["output_shape"]
    row = "vector"
    extent = f"{shape[0]} vectors of {shape[1]} values"
    if has_positions:
        averaged = count_averaged(shape[1])
        means = f", means of {averaged} neighbours" if averaged > 1 else ""
        row, extent = "unit", f"{shape[0]} units at {shape[1]} positions{means}"
    caption = Caption(
        f"{layer}: {extent}, on {context.image_phrase}, {scales.describe_extent(layer)}",
        f"Outputs of {layer} ({context.layers[layer]['type']}) on {context.image_list}, input first, one "
        f"{row} per row. {scales.describe(layer)}",
    )
    labels = [context.describe_image(image, "\n") for image in context.images]
    bars = [make_colour_bar(scales, layer, 0, len(rows) - 1, "activation")]
    return context.make_montage("values", layer, rows, labels, bars, caption)
