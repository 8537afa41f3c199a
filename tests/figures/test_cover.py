"""The first figure of a network."""

import numpy as np

from tests.support.drawings import Draw
from tests.support.fake_results import make_results


def test_the_cover_shows_the_projection_of_the_strongest_activation(draw: Draw) -> None:
    results = make_results(1)
    drawing = draw(results)["cover", ""]
    for image, tile in zip(("first", "second"), drawing.rows[1], strict=True):
        unit = int(np.unravel_index(results.activations[image]["pool"].argmax(), (18, 4, 3))[0])
        assert tile is not None and int(tile.title) == unit
        np.testing.assert_array_equal(tile.values, results.projections[image]["pool"][unit, 0])


def test_the_cover_crosses_out_no_active_unit(draw: Draw) -> None:
    """The projection of an active unit may be zero."""
    results = make_results()
    for projections in results.projections.values():
        projections["pool"][:] = 0
    assert not any(
        tile.crossed_out or tile.right_title for tile in draw(results)["cover", ""].rows[1] if tile
    )


def test_the_cover_crosses_out_an_inactive_unit(draw: Draw) -> None:
    results = make_results()
    for image, projections in results.projections.items():
        results.activations[image]["pool"][:] = 0
        projections["pool"][:] = 0
    assert all(tile.crossed_out for tile in draw(results)["cover", ""].rows[1] if tile)
