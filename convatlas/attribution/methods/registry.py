"""The attribution methods by name."""

from convatlas import UserError
from convatlas.attribution.methods import cam, gradients, occlusion, rectifiers
from convatlas.attribution.methods.method import Method
from convatlas.names import suggest_nearest

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        gradients.GRADIENT,
        gradients.GRADIENT_X_INPUT,
        gradients.INTEGRATED_GRADIENTS,
        gradients.SMOOTHGRAD,
        rectifiers.GUIDED_BACKPROPAGATION,
        rectifiers.DECONVNET,
        cam.GRAD_CAM,
        cam.GRAD_CAM_PLUS_PLUS,
        occlusion.OCCLUSION,
    )
}


def get_method(name: str) -> Method:
    """Return a method by its name.

    Args:
        name: The name, as in the config.

    Raises:
        UserError: There is no such method; lists those that there are.
    """
    if name not in METHODS:
        raise UserError(f"there is no attribution method {name!r}; {suggest_nearest(name, list(METHODS))}")
    return METHODS[name]
