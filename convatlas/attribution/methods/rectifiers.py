"""Methods that change the gradient at rectifiers: guided backpropagation and the deconvnet."""

from contextlib import AbstractContextManager

from torch.autograd.graph import get_gradient_edge

from convatlas.attribution.backward_rules import attach_rules
from convatlas.attribution.class_scores import ScoreGraph
from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.attribution.methods.backward import backpropagate_all
from convatlas.attribution.methods.method import Explanation, Maps, Method, empty_checks

SKIP_METHOD = "leave deconvnet out of views.attribution.methods"


def compute_guided_backpropagation(explanation: Explanation, rectify: bool = False) -> Maps:
    """Return the gradient of each target's score, rectified at each ReLU of the backward pass.

    Args:
        explanation: What is to be explained.
        rectify: Rectify the gradient at activations that are not ReLUs too, where the method is undefined.

    Raises:
        UserError: An activation is not a ReLU, and `rectify` is false.
    """

    def attach(graph: ScoreGraph) -> AbstractContextManager[None]:
        return attach_gradient_rules(graph.top, graph.layers, guided=True, rectify=rectify)

    values = backpropagate_all(explanation, attach)
    return Maps(values, empty_checks(explanation.classes))


def compute_deconvnet(explanation: Explanation, rectify: bool = False) -> Maps:
    """Return the deconvnet projection of each target's score.

    Of a class with a positive score it is the projection of `deconvnet.project` from the layer of the scores,
    divided by the score.

    Args:
        explanation: What is to be explained.
        rectify: Rectify the signal at activations that are not ReLUs too, where the method is undefined.

    Raises:
        UserError: An activation is not a ReLU, and `rectify` is false; or an operation has no rule.
    """

    def attach(graph: ScoreGraph) -> AbstractContextManager[None]:
        return attach_rules(get_gradient_edge(graph.scores), graph.layers, rectify, SKIP_METHOD)

    values = backpropagate_all(explanation, attach)
    return Maps(values, empty_checks(explanation.classes))


GUIDED_BACKPROPAGATION = Method(
    name="guided_backpropagation",
    title="Guided backpropagation",
    returns="pixels",
    requires=frozenset({"class scores", "rectifiers"}),
    citation="Springenberg, Dosovitskiy, Brox, Riedmiller 2014, arXiv 1412.6806",
    caveat="It is sharp because it recovers edges of the image, and hardly differs from class to class.",
    check="In a network without rectifiers it equals the gradient.",
    compute=compute_guided_backpropagation,
    settings={"rectify": False},
)
DECONVNET = Method(
    name="deconvnet",
    title="Deconvnet",
    returns="pixels",
    requires=frozenset({"class scores", "rectifiers"}),
    citation="Zeiler, Fergus 2013, arXiv 1311.2901",
    caveat="It shows where the maxima of max pooling were, hardly differs by class, and is not a gradient.",
    check="In a network without rectifiers it equals the gradient.",
    compute=compute_deconvnet,
    settings={"rectify": False},
)
