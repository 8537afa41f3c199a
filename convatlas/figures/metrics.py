"""Figures of a network's training and test metrics: the training curves and the confusion matrix."""

from collections.abc import Iterator
from typing import cast

import numpy as np

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.plotting import charts
from convatlas.records import ClassificationMetrics, SegmentationMetrics


def draw_metrics(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw what there is of the training curves and the confusion matrix.

    Args:
        context: The network's results and views.

    Yields:
        A figure of kind "curves" where there is a training history, then one of kind "confusion" where the
        metrics have a confusion matrix.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    if context.results.history:
        yield _draw_training_curves(context)
    metrics = context.results.metrics
    if metrics and "confusion" in metrics:
        yield _draw_confusion_matrix(context, metrics)


def _draw_training_curves(context: FigureContext) -> CaptionedFigure:
    training, history = context.network["training"] or {}, context.results.history
    epoch = training["best_epoch"]
    is_segmentation = history[0].get("validation_mean_iou") is not None
    metrics = "loss, accuracy and mean IoU" if is_segmentation else "loss and accuracy"
    caption = Caption(
        f"training: {metrics} over {len(history)} epochs; checkpoint of epoch {epoch}",
        f"On the {training['images']:,} training images and on the validation set, on which the "
        "checkpoint is selected.",
    )
    figure = charts.plot_training_curves(history, epoch, context.format_line(caption))
    return context.make_figure("curves", "", caption, figure)


def _draw_confusion_matrix(
    context: FigureContext, metrics: ClassificationMetrics | SegmentationMetrics
) -> CaptionedFigure:
    counts = np.array(metrics["confusion"])
    is_segmentation = "mean_iou" in metrics
    if is_segmentation:
        subject = f"the {counts.sum():,} pixels of {metrics['images']:,} test images"
        accuracy = f"pixel accuracy {100 * cast(SegmentationMetrics, metrics)['pixel_accuracy']:.2f} %"
        shading = "numbers and shading: share of the row"
    else:
        subject = f"{counts.sum():,} test images"
        accuracy = f"accuracy {100 * cast(ClassificationMetrics, metrics)['accuracy']:.2f} %"
        shading = "shading: share of the row"
    caption = Caption(
        f"test split: confusion matrix of {subject}, {accuracy}",
        f"Evaluated once, after training. Rows: true class; columns: predicted class; {shading}.",
    )
    line = context.format_line(caption)
    figure = charts.plot_confusion_matrix(counts, context.network["classes"], line, is_segmentation)
    return context.make_figure("confusion", "", caption, figure)
