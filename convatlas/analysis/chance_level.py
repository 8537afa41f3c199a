"""The margin over the chance level from which an agreement with the masks is reported."""

from convatlas.records import SegmentationLayer

MIN_IOU_ABOVE_CHANCE = 0.05


def is_above_chance(layer: SegmentationLayer) -> bool:
    """Return whether a layer's IoU is far enough above chance to be reported.

    Args:
        layer: The layer's entry in masks.json.
    """
    return layer["iou"] >= layer["chance_iou"] + MIN_IOU_ABOVE_CHANCE
