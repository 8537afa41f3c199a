"""The skeleton of a pet: a pose and a breed as chains of round cones."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convatlas.datasets.synthetic_pets.breeds import (
    BODY,
    EAR,
    EARS,
    HEAD,
    LEG,
    LIMB_RADII,
    POSES,
    SKULLS,
    TAIL,
    TONGUE,
    Breed,
    Pose,
)

Generator = np.random.Generator


class RoundCone(NamedTuple):
    """A round cone (two balls and their convex hull) from `a` to `b`, with its place in its chain."""

    zone: int
    a: np.ndarray
    b: np.ndarray
    radii: tuple[float, float]
    blend: float  # width over which it blends into its neighbours
    chain_distance: tuple[float, float]  # of `a` and `b`, along the chain
    chain_fraction: tuple[float, float]  # the same as a share of the chain's length


class Animal(NamedTuple):
    """Round cones in the view's frame (right, down, nearer), and the frames in which the fur is painted."""

    cones: list[RoundCone]
    body_rotation: np.ndarray  # (3, 3): from the body's frame to the view's
    head_rotation: np.ndarray  # (3, 3): from the head's frame to the view's
    head_centre: np.ndarray  # (3,)
    dorsal: np.ndarray  # (3,): from belly to back, in the view's frame
    scale: float = 1.0  # pixels per radius of the head
    origin: np.ndarray | float = 0.0

    def to_pixels(self, scale: float, origin: np.ndarray) -> "Animal":
        """Return the animal converted from radii of its head to pixels.

        Args:
            scale: Pixels per radius of the head.
            origin: Position (3,) of the animal's origin in pixels.
        """
        cones = [
            cone._replace(
                a=cone.a * scale + origin,
                b=cone.b * scale + origin,
                radii=(cone.radii[0] * scale, cone.radii[1] * scale),
                blend=cone.blend * scale,
            )
            for cone in self.cones
        ]
        return self._replace(
            cones=cones, head_centre=self.head_centre * scale + origin, scale=scale, origin=origin
        )


def _rotation_matrix(yaw: float, pitch: float, roll: float = 0.0) -> np.ndarray:
    """Return the rotation (3, 3) from (side, up, forward) to the view's (right, down, nearer); radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    yaw_matrix = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch_matrix = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll_matrix = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    matrix: np.ndarray = np.diag([1, -1, 1]) @ pitch_matrix @ yaw_matrix @ roll_matrix
    return matrix


def _build_chain(zone: int, joints: npt.ArrayLike, blend: float) -> list[RoundCone]:
    """Join the rows (x, y, z, radius) of `joints` by round cones; only the first blends widely."""
    rows = np.asarray(joints, float)
    if len(rows) == 1:
        rows = np.concatenate([rows, rows + 1e-3])
    distances = np.concatenate([[0], np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1).cumsum()])
    cones = []
    for i, (a, b) in enumerate(pairwise(rows)):
        distance = (distances[i], distances[i + 1])
        fraction = (distance[0] / distances[-1], distance[1] / distances[-1])
        radii = (float(a[3]), float(b[3]))
        cones.append(RoundCone(zone, a[:3], b[:3], radii, 0.05 if i else blend, distance, fraction))
    return cones


def pose_animal(breed: Breed, rng: Generator) -> Animal:
    """Pose an animal of a breed above the origin, in radii of its head.

    Args:
        breed: Its build, coat, tail and head.
        rng: Draws the pose, the directions of body, head and camera, and the proportions.
    """
    name = str(rng.choice(list(POSES), p=[pose.probability for pose in POSES.values()]))
    pose, upright = POSES[name], name in ("stand", "sit")
    side = rng.choice([-1, 1])
    yaw = side * np.radians(rng.uniform(*pose.yaw))
    camera = np.radians(rng.uniform(0, 22))
    gaze = np.clip(yaw * rng.uniform(0, 0.7) + rng.normal(0, 0.25), -1.05, 1.05)
    if rng.random() < 0.12:
        gaze = 1.25 * side  # in profile
    body = _rotation_matrix(yaw, camera)
    head = _rotation_matrix(gaze, camera * 0.4 + rng.normal(-0.03, 0.1), rng.normal(0, 0.12))
    broad, tall, long = np.array(breed.build) * rng.uniform(0.93, 1.07, 3)
    stretch = np.array([broad, tall if upright else broad, long])
    hip, chest, skull = (np.array(joint) * stretch for joint in (pose.hip, pose.chest, pose.head))
    skull = chest + (skull - chest) * rng.uniform(0.85, 1.05)
    stride = rng.normal(0, 0.3, 4) if name == "stand" else np.zeros(4)
    cones = _build_trunk(hip, chest, skull, broad, breed.fur_length)
    cones += _build_legs(pose, stretch, stride, breed.fur_length)
    cones += _build_tail(hip, broad, breed, name == "stand", rng)
    cones = [cone._replace(a=body @ cone.a, b=body @ cone.b) for cone in cones]
    skull = body @ skull
    cones += [
        cone._replace(a=skull + head @ cone.a, b=skull + head @ cone.b) for cone in _build_head(breed, rng)
    ]
    spine = (chest - hip) / np.linalg.norm(chest - hip)
    return Animal(cones, body, head, skull, body @ np.array([0, spine[2], -spine[1]]))


def _build_trunk(
    hip: np.ndarray, chest: np.ndarray, skull: np.ndarray, broad: float, fur: float
) -> list[RoundCone]:
    """Build neck and body."""
    nape = skull + (chest - skull) * 0.3 + (0, 0, -0.25)
    radii = np.array([0.62 * broad**0.5, 0.95 * broad, 0.9 * broad, 0.88 * broad]) + fur
    return _build_chain(BODY, np.column_stack([[nape, chest, (chest + hip) / 2, hip], radii]), 0.35)


def _build_legs(pose: Pose, stretch: np.ndarray, stride: np.ndarray, fur: float) -> list[RoundCone]:
    """Build four legs; `stride` (4,) moves the feet forward."""
    cones = []
    for number, step in enumerate(stride):
        limb = ("fore", "hind")[number % 2]
        joints = np.array(getattr(pose, limb)) * stretch * (1 if number < 2 else -1, 1, 1)
        joints[:, 1] = np.maximum(joints[:, 1], 0.2)
        joints[:, 2] += step * np.clip(1.6 - joints[:, 1], 0, 1.2)
        radii = np.array(LIMB_RADII[limb]) * stretch[0] ** 0.7 + 0.4 * fur
        cones += _build_chain(LEG, np.column_stack([joints, radii]), 0.22)
    return cones


def _build_tail(hip: np.ndarray, broad: float, breed: Breed, raised: bool, rng: Generator) -> list[RoundCone]:
    """Build the tail, raised or on the ground."""
    length, radius = breed.tail
    curl = rng.uniform(-0.3, 0.5, 5).cumsum()
    if raised:
        rise = rng.uniform(-0.8, 0.9) + curl
        steps = np.column_stack([np.full(5, rng.normal(0, 0.25)), np.sin(rise), -np.cos(rise)])
        start = hip + broad * np.array([0, 0.45, -0.7])
    else:  # on the ground, swept to a side
        sweep = rng.choice([-1, 1]) * (rng.uniform(0.6, 1.4) + 1.2 * curl)
        steps = np.column_stack([np.sin(sweep), np.zeros(5), -np.cos(sweep)])
        start = np.array([0, radius, hip[2] - 0.75 * broad])
    joints = np.concatenate([[start], start + (steps * length / 5).cumsum(axis=0)])
    joints[:, 1] = np.maximum(joints[:, 1], radius)
    radii = radius * (
        np.array([1, 1.1, 1.15, 1.1, 0.95, 0.55]) if breed.fur_length > 0.08 else np.linspace(1.15, 0.6, 6)
    )
    return _build_chain(TAIL, np.column_stack([joints, radii]), 0.15)


def _build_head(breed: Breed, rng: Generator) -> list[RoundCone]:
    """Build the head in its own frame."""
    reach = breed.muzzle * rng.uniform(0.9, 1.1)
    cones: list[RoundCone] = []
    for zone, blend, rows in (*SKULLS[breed.species], (EAR, 0.06, EARS[breed.ears])):
        joints = np.array(rows, float)
        if breed.species == "dog":
            joints[:, 2] += np.maximum(joints[:, 2] - 0.45, 0) * (reach / 0.55 - 1)
        if zone == HEAD:
            joints[:, 3] += 0.5 * breed.fur_length * (joints[:, 2] < 0.5)
        cones += _build_chain(zone, joints, blend)
        if joints[:, 0].any():
            cones += _build_chain(zone, joints * (-1, 1, 1, 1), blend)
    return cones + _build_jaw(reach, rng) if breed.species == "dog" else cones


def _build_jaw(reach: float, rng: Generator) -> list[RoundCone]:
    """Build a dog's lower jaw, and its tongue if it pants."""
    pants = rng.random() < 0.45
    drop = rng.uniform(0.15, 0.3) if pants else 0.02
    jaw = _build_chain(HEAD, [(0, -0.5, 0.3, 0.26), (0, -0.56 - drop, 0.3 + 0.8 * reach, 0.19)], 0.06)
    if not pants:
        return jaw
    y, z = -0.5 - drop, 0.42 + 0.85 * reach
    return jaw + _build_chain(TONGUE, [(0, y, z - 0.35, 0.17), (0, y, z, 0.17), (0, y - 0.45, z, 0.15)], 0.05)


def choose_framing(animal: Animal, size: np.ndarray, rng: Generator) -> tuple[float, np.ndarray]:
    """Choose where and how large an animal is in its image; about a quarter of the images are portraits.

    Args:
        animal: The animal, in radii of its head.
        size: Width and height of the image in pixels, (2,).
        rng: Draws scale and position.

    Returns:
        The scale in pixels per radius of the head, and the position of the animal's origin in pixels, (3,).
    """
    ends = np.array([(cone.a - radius, cone.a + radius) for cone in animal.cones for radius in cone.radii])
    low, high = ends[:, 0].min(axis=0)[:2], ends[:, 1].max(axis=0)[:2]
    if rng.random() < 0.27:  # a portrait
        scale = rng.uniform(0.2, 0.28) * size.min()
    else:
        scale = max(rng.uniform(0.55, 0.95) * (size / (high - low)).min(), 0.155 * size.min())
    origin = rng.uniform(-0.2, 1.2, 2) * (size - (high - low) * scale) - low * scale
    skull = animal.head_centre[:2] * scale
    room = np.minimum(1.2 * scale, 0.45 * size)
    return float(scale), np.append(np.clip(origin + skull, room, size - room) - skull, 0)
