"""Methods that follow the gradient of a class's score to the pixels."""

from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.attribution.methods.backward import count_images, send_down
from convatlas.attribution.methods.method import Explanation, Maps, Method, allocate_maps, empty_checks


def compute_gradient(explanation: Explanation) -> Maps:
    """Return the gradient of each target's score by the pixels.

    Args:
        explanation: What is to be explained.
    """
    images, classes = explanation.images, explanation.classes
    values = allocate_maps(explanation, images.shape[1])
    for index, graph in explanation.scores.record_batches(images, count_images(images)):
        targets = explanation.scores.make_targets(graph.scores.detach(), classes[index], index.start)
        with attach_gradient_rules(graph.top, graph.layers):
            values[index] = send_down(graph, targets)
    return Maps(values, empty_checks(classes))


GRADIENT = Method(
    name="gradient",
    title="Gradient (saliency)",
    returns="pixels",
    requires=frozenset({"class scores"}),
    citation="Simonyan, Vedaldi, Zisserman 2013, arXiv 1312.6034",
    caveat="It says which pixels the score is most sensitive to, not which it was computed from.",
    check="It is the exact derivative of the logit.",
    compute=compute_gradient,
)
