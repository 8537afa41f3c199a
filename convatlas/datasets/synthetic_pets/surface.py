"""The surface: which part of an animal is seen where, and what lies there of its own coordinates."""

from typing import NamedTuple

import numpy as np

from convatlas.datasets.synthetic_pets.animal import EAR, HEAD, MISS_DEPTH, Animal, RoundCone


def render_surface(animal: Animal, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join all parts: distance outside of the outline, depth, and the number of the part seen, each `shape`.

    Beyond its outline a part falls away steeply, a skirt by which the smooth unions fill the corners.
    """
    margin = 0.15 * animal.scale
    outside = np.full(shape, 3 * margin, np.float32)
    depth, front = np.full(shape, MISS_DEPTH, np.float32), np.full(shape, 2 * MISS_DEPTH, np.float32)
    owner = np.zeros(shape, np.int16)
    for number, part in enumerate(animal.cones):
        reach = np.array(part.radii)[:, None] + margin
        ends = np.stack([part.a, part.b])[:, :2]
        left, top = np.clip((ends - reach).min(axis=0), 0, shape[::-1]).astype(int)
        right, bottom = np.clip((ends + reach).max(axis=0) + 1, 0, shape[::-1]).astype(int)
        if left == right or top == bottom:
            continue
        window = np.s_[top:bottom, left:right]
        y, x = np.ogrid[window]
        x, y = (
            (axis + 0.5 - start).astype(np.float32) for axis, start in zip((x, y), part.a[:2], strict=True)
        )
        distance, height, skirt = _intersect_round_cone(x, y, part)
        hit = height > MISS_DEPTH
        key = np.where(hit, height, skirt + MISS_DEPTH)
        owner[window][key > front[window] + 0.01 * animal.scale] = (
            number  # of equals the first, lest they mix
        )
        np.maximum(front[window], key, out=front[window])
        outside[window] = -_smooth_maximum(-outside[window], -distance, part.blend)
        depth[window] = _smooth_maximum(depth[window], np.where(hit, height, skirt), part.blend)
    return outside, depth, owner


def _smooth_maximum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The larger of two, rounded where they differ by less than `width` (Quilez, "Smooth minimum")."""
    near = np.maximum(width - np.abs(a - b), 0)
    return np.maximum(a, b) + near * near * (0.25 / width)


def _intersect_round_cone(
    x: np.ndarray, y: np.ndarray, part: RoundCone
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance outside, depth (FAR where missed) and skirt, at x (1, W) and y (H, 1) from its start.

    The depth is where a ray along the view meets it (Quilez, "Rounded cone - intersection").
    """
    (bx, by, bz), (ra, rb) = (part.b - part.a).tolist(), part.radii  # plain floats keep float32
    start, end, slope = float(part.a[2]), float(part.b[2]), ra - rb
    square = x * x + y * y
    way = bx * x + by * y
    seen = bx * bx + by * by  # squared length of the axis as seen
    other = np.maximum(square - 2 * way + seen, 0)  # squared distance from the end's centre
    distance = np.minimum(np.sqrt(square) - ra, np.sqrt(other) - rb)
    skirt = np.full_like(square, start if slope > 0 else end)
    flat = seen - slope * slope
    if flat > 1e-6:  # neither ball hides the other: the tangents between them bound the outline
        share = np.clip((way - np.abs(bx * y - by * x) * (slope / flat**0.5)) * (1 / seen), 0, 1)
        off = np.sqrt((x - share * bx) ** 2 + (y - share * by) ** 2)  # hypot is slower
        distance = np.minimum(distance, off - ra + share * slope)
        skirt = start + share * bz
    depth = np.maximum(
        np.where(square < ra * ra, np.sqrt(np.maximum(ra * ra - square, 0)) + start, MISS_DEPTH),
        np.where(other < rb * rb, np.sqrt(np.maximum(rb * rb - other, 0)) + end, MISS_DEPTH),
    )
    full = seen + bz * bz
    inner = full - slope * slope
    if inner > 0:  # the cone between the balls: its nearer meeting solves k2 t² + 2 k1 t + k0 = 0
        k2 = inner - bz * bz
        k1 = bz * (way - slope * ra)
        k0 = inner * square - way * way + (2 * slope * ra) * way - full * ra * ra
        under = k1 * k1 - k0 * k2
        root = np.sqrt(np.maximum(under, 0))
        down = np.where(
            k1 < 0, k0 / (root - np.minimum(k1, -1e-3)), (k1 + root) / -(k2 or 1e-6)
        )  # no cancelling
        place = way - ra * slope - down * bz
        hit = (under > 0) & (place > 0) & (place < inner)
        depth = np.where(hit, np.maximum(depth, start - down), depth)
    return distance, depth, skirt - 6 * np.maximum(distance, 0)


class SurfacePixels(NamedTuple):
    """What is visible, one row a pixel: places, zones and the coordinates the coat is painted in."""

    rows: np.ndarray
    columns: np.ndarray
    zone: np.ndarray
    chain_distance: np.ndarray  # way along its chain
    chain_fraction: np.ndarray  # the same as a share
    dorsal: np.ndarray  # 1 at the back, -1 at the belly; on ears 1 in front
    body_coordinates: np.ndarray  # (N, 3) in the body's frame
    head_coordinates: np.ndarray  # (N, 3) in the head's frame
    hair_direction: np.ndarray  # (N, 2) the way the hair lies, in the image


def find_surface_pixels(
    animal: Animal, outside: np.ndarray, depth: np.ndarray, owner: np.ndarray, fur: float
) -> SurfacePixels:
    """List the pixels that the animal or its hair may cover, and where on it they lie."""
    rows, columns = np.nonzero(outside < fur + 1)
    own = owner[rows, columns]
    points = np.column_stack([columns + 0.5, rows + 0.5, depth[rows, columns]]).astype(np.float32)

    def each(values: list) -> np.ndarray:
        return np.array(values, np.float32)[own]

    parts, zone = animal.cones, np.array([part.zone for part in animal.cones])[own]
    start, axis = each([part.a for part in parts]), each([part.b - part.a for part in parts])
    off = points - start
    share = np.clip(np.einsum("ij,ij->i", off, axis) / np.einsum("ij,ij->i", axis, axis), 0, 1)
    off -= share[:, None] * axis

    def between(name: str) -> np.ndarray:
        ends = each([getattr(part, name) for part in parts])
        return ends[:, 0] + share * (ends[:, 1] - ends[:, 0])

    up = each([animal.head_rotation[:, 2] if part.zone == EAR else animal.dorsal for part in parts])
    dorsal = np.einsum("ij,ij->i", off, up) / between("radii")
    body = (points - np.float32(animal.origin)) @ np.float32(animal.body_rotation / animal.scale)
    head = (points - np.float32(animal.head_centre)) @ np.float32(animal.head_rotation / animal.scale)
    nose = animal.head_centre + animal.head_rotation @ np.array([0, -0.2, 0.9]) * animal.scale
    flow = np.where((zone == HEAD)[:, None], points[:, :2] - np.float32(nose[:2]), axis[:, :2])
    return SurfacePixels(
        rows, columns, zone, between("chain_distance"), between("chain_fraction"), dorsal, body, head, flow
    )
