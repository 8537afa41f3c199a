"""The visible surface of a pet: outline, depth, and for each pixel its place on the body."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convatlas.datasets.synthetic_pets.breeds import EAR, HEAD
from convatlas.datasets.synthetic_pets.skeleton import Animal, RoundCone

MISS_DEPTH = -1e4  # depth where there is no surface


def render_surface(animal: Animal, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join all round cones of an animal into a height field.

    Beyond its outline the height of a cone falls steeply, as a skirt with which the smooth unions fill the
    corners between cones.

    Args:
        animal: The animal, in pixels.
        shape: Height and width in pixels.

    Returns:
        The distance outside the outline (negative inside), the depth, and the index of the visible cone:
        each of `shape`.
    """
    margin = 0.15 * animal.scale
    outside = np.full(shape, 3 * margin, np.float32)
    depth, front = np.full(shape, MISS_DEPTH, np.float32), np.full(shape, 2 * MISS_DEPTH, np.float32)
    owner = np.zeros(shape, np.int16)
    for index, cone in enumerate(animal.cones):
        reach = np.array(cone.radii)[:, None] + margin
        ends = np.stack([cone.a, cone.b])[:, :2]
        left, top = np.clip((ends - reach).min(axis=0), 0, shape[::-1]).astype(int)
        right, bottom = np.clip((ends + reach).max(axis=0) + 1, 0, shape[::-1]).astype(int)
        if left == right or top == bottom:
            continue
        window = np.s_[top:bottom, left:right]
        y, x = np.ogrid[window]
        x, y = (
            (axis + 0.5 - start).astype(np.float32) for axis, start in zip((x, y), cone.a[:2], strict=True)
        )
        distance, height, skirt = _intersect_round_cone(x, y, cone)
        hit = height > MISS_DEPTH
        key = np.where(hit, height, skirt + MISS_DEPTH)
        # Of equally near cones the first owns a pixel, so that they do not alternate.
        owner[window][key > front[window] + 0.01 * animal.scale] = index
        np.maximum(front[window], key, out=front[window])
        outside[window] = -_smooth_maximum(-outside[window], -distance, cone.blend)
        depth[window] = _smooth_maximum(depth[window], np.where(hit, height, skirt), cone.blend)
    return outside, depth, owner


def _smooth_maximum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Return the larger of two, rounded where they differ by less than `width` (Quilez, "Smooth minimum")."""
    near = np.maximum(width - np.abs(a - b), 0)
    maximum: np.ndarray = np.maximum(a, b) + near * near * (0.25 / width)
    return maximum


def _intersect_round_cone(
    x: np.ndarray, y: np.ndarray, cone: RoundCone
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance outside, depth (MISS_DEPTH where missed) and skirt, at x (1, W) and y (H, 1) from `a`.

    The depth is where a ray along the view meets the cone (Quilez, "Rounded cone - intersection").
    """
    (bx, by, bz), (ra, rb) = (cone.b - cone.a).tolist(), cone.radii  # plain floats keep float32
    start, end, slope = float(cone.a[2]), float(cone.b[2]), ra - rb
    square = x * x + y * y
    projection = bx * x + by * y
    axis_square = bx * bx + by * by  # squared length of the projected axis
    end_square = np.maximum(
        square - 2 * projection + axis_square, 0
    )  # squared distance from the end's centre
    distance = np.minimum(np.sqrt(square) - ra, np.sqrt(end_square) - rb)
    skirt = np.full_like(square, start if slope > 0 else end)
    flat = axis_square - slope * slope
    if flat > 1e-6:  # neither ball hides the other: the tangents between them bound the outline
        fraction = np.clip(
            (projection - np.abs(bx * y - by * x) * (slope / flat**0.5)) * (1 / axis_square), 0, 1
        )
        axis_distance = np.sqrt((x - fraction * bx) ** 2 + (y - fraction * by) ** 2)  # hypot is slower
        distance = np.minimum(distance, axis_distance - ra + fraction * slope)
        skirt = start + fraction * bz
    depth = np.maximum(
        np.where(square < ra * ra, np.sqrt(np.maximum(ra * ra - square, 0)) + start, MISS_DEPTH),
        np.where(end_square < rb * rb, np.sqrt(np.maximum(rb * rb - end_square, 0)) + end, MISS_DEPTH),
    )
    full = axis_square + bz * bz
    inner = full - slope * slope
    if inner > 0:  # the cone between the balls: its nearer intersection solves k2 t² + 2 k1 t + k0 = 0
        k2 = inner - bz * bz
        k1 = bz * (projection - slope * ra)
        k0 = inner * square - projection * projection + (2 * slope * ra) * projection - full * ra * ra
        discriminant = k1 * k1 - k0 * k2
        root = np.sqrt(np.maximum(discriminant, 0))
        # Two forms of the same root, each without cancellation where it is used.
        t = np.where(k1 < 0, k0 / (root - np.minimum(k1, -1e-3)), (k1 + root) / -(k2 or 1e-6))
        position = projection - ra * slope - t * bz
        hit = (discriminant > 0) & (position > 0) & (position < inner)
        depth = np.where(hit, np.maximum(depth, start - t), depth)
    return distance, depth, skirt - 6 * np.maximum(distance, 0)


class SurfacePixels(NamedTuple):
    """The visible pixels, one row each: position, zone and the coordinates in which the fur is painted."""

    rows: np.ndarray
    columns: np.ndarray
    zone: np.ndarray
    chain_distance: np.ndarray  # along the chain of cones
    chain_fraction: np.ndarray  # the same as a share of the chain's length
    dorsal: np.ndarray  # 1 at the back, -1 at the belly; on ears 1 in front
    body_coordinates: np.ndarray  # (N, 3) in the body's frame
    head_coordinates: np.ndarray  # (N, 3) in the head's frame
    hair_direction: np.ndarray  # (N, 2) in the image


def find_surface_pixels(
    animal: Animal, outside: np.ndarray, depth: np.ndarray, owner: np.ndarray, fur: float
) -> SurfacePixels:
    """List the pixels that an animal or its fur may cover, with their places on the body.

    Args:
        animal: The animal, in pixels.
        outside: Distance outside the outline (H, W).
        depth: Depth (H, W).
        owner: Index of the visible cone (H, W).
        fur: Length of the fur in pixels.
    """
    rows, columns = np.nonzero(outside < fur + 1)
    cone_indices = owner[rows, columns]
    points = np.column_stack([columns + 0.5, rows + 0.5, depth[rows, columns]]).astype(np.float32)

    def per_pixel(values: npt.ArrayLike) -> np.ndarray:
        """Return for each pixel the value of its cone."""
        pixel_values: np.ndarray = np.array(values, np.float32)[cone_indices]
        return pixel_values

    cones, zone = animal.cones, np.array([cone.zone for cone in animal.cones])[cone_indices]
    start, axis = per_pixel([cone.a for cone in cones]), per_pixel([cone.b - cone.a for cone in cones])
    offset = points - start
    fraction = np.clip(
        np.einsum("ij,ij->i", offset, axis) / np.einsum("ij,ij->i", axis, axis), 0, 1
    )  # along the cone's axis
    offset -= fraction[:, None] * axis

    def interpolate(end_values: list[tuple[float, float]]) -> np.ndarray:
        """Interpolate for each pixel between the values at the ends of its cone."""
        ends = per_pixel(end_values)
        values: np.ndarray = ends[:, 0] + fraction * (ends[:, 1] - ends[:, 0])
        return values

    up = per_pixel([animal.head_rotation[:, 2] if cone.zone == EAR else animal.dorsal for cone in cones])
    dorsal = np.einsum("ij,ij->i", offset, up) / interpolate([cone.radii for cone in cones])
    body = (points - np.float32(animal.origin)) @ np.float32(animal.body_rotation / animal.scale)
    head = (points - np.float32(animal.head_centre)) @ np.float32(animal.head_rotation / animal.scale)
    nose = animal.head_centre + animal.head_rotation @ np.array([0, -0.2, 0.9]) * animal.scale
    hair = np.where((zone == HEAD)[:, None], points[:, :2] - np.float32(nose[:2]), axis[:, :2])
    chain_distance = interpolate([cone.chain_distance for cone in cones])
    chain_fraction = interpolate([cone.chain_fraction for cone in cones])
    return SurfacePixels(rows, columns, zone, chain_distance, chain_fraction, dorsal, body, head, hair)
