"""The animal: breeds and poses, and the chains of round cones that they make."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

BODY, LEG, TAIL, HEAD, EAR, NOSE, TONGUE = range(7)  # the zones of an animal
MISS_DEPTH = -1e4  # the depth of what is not there
Vector = tuple[float, float, float]
Generator = np.random.Generator


@dataclass(frozen=True)
class Breed:
    """How one kind of animal looks; lengths count in radii of its head."""

    species: str
    pattern: str  # a key of COATS
    colours: tuple[str, str, str]  # the coat's ground, its pattern, its light parts
    eyes: str
    nose: str
    ears: str  # a key of EARS
    fur_length: float  # length of the hair: 0.03 is smooth, 0.15 fluffy
    build: Vector  # factors on breadth, height and length
    tail: tuple[float, float]  # length, radius
    muzzle: float = 0.0  # how far a dog's stands out


@dataclass(frozen=True)
class Pose:
    """The joints (side, up, forward) of the left half, in radii of the head; the right half mirrors them."""

    hip: Vector
    chest: Vector
    head: Vector
    fore: tuple[Vector, ...]
    hind: tuple[Vector, ...]
    yaw: tuple[float, float]  # degrees turned away from the viewer, least and most
    probability: float  # of the images


class Eye(NamedTuple):
    """Where an eye sits on the head, and its half axes: angles in radians."""

    side: float
    up: float
    width: float
    height: float
    slant: float


# fmt: off
SLIM, CAT, DOG, STOUT = (0.82, 0.95, 1.0), (0.92, 0.9, 0.95), (1.0, 1.12, 1.05), (1.2, 1.0, 0.95)
BREEDS = {  # the palettes of the species overlap, so that colour does not tell them apart
    "Ginger_tabby": Breed("cat", "tabby", ("#cf9050", "#8f4c1e", "#f2e2c8"), "#b9ac3c", "#c47a68",
                          "upright", 0.04, CAT, (3.4, 0.2)),
    "Grey_longhair": Breed("cat", "solid", ("#868b94", "#5c626d", "#a9aeb6"), "#d48a24", "#55494c",
                           "small", 0.15, CAT, (2.8, 0.42)),
    "Tuxedo_shorthair": Breed("cat", "tuxedo", ("#2b2a2d", "#3a383b", "#efece6"), "#9db845", "#c98a84",
                              "upright", 0.04, CAT, (3.2, 0.2)),
    "Cream_pointed": Breed("cat", "points", ("#dccbb0", "#4a382e", "#efe6d4"), "#6aa6dc", "#3c2f2c",
                           "tall", 0.03, SLIM, (3.6, 0.16)),
    "Calico_shorthair": Breed("cat", "patches", ("#eee8dc", "#c07a38", "#2f2a2a"), "#a8a83c", "#d09088",
                              "upright", 0.05, CAT, (3.2, 0.2)),
    "Spotted_brown": Breed("cat", "spots", ("#a5845c", "#3f2c1e", "#dccbb0"), "#8fb84c", "#8c5044",
                           "tall", 0.03, SLIM, (3.4, 0.2)),
    "black_tan_longear": Breed("dog", "tan", ("#2a2728", "#332e2d", "#b0763c"), "#5a3418", "#221d1e",
                               "long", 0.03, DOG, (2.8, 0.2), 0.95),
    "golden_shaggy": Breed("dog", "solid", ("#cfa05c", "#a06c30", "#e8cc98"), "#4a2c16", "#221d1e",
                           "floppy", 0.13, DOG, (2.8, 0.36), 0.8),
    "white_spotted": Breed("dog", "spots", ("#ebe7e0", "#2c2a2b", "#f4f1ea"), "#5a3418", "#221d1e",
                           "floppy", 0.03, DOG, (3.0, 0.18), 0.9),
    "brindle_stout": Breed("dog", "brindle", ("#a87842", "#3c2a1e", "#efe8da"), "#3c2416", "#221d1e",
                           "folded", 0.03, STOUT, (1.4, 0.2), 0.7),
    "grey_white_prickear": Breed("dog", "saddle", ("#8e9096", "#3c3e44", "#eceae6"), "#7ab0dc", "#221d1e",
                                 "pricked", 0.1, DOG, (2.6, 0.4), 0.95),
    "brown_white_rough": Breed("dog", "tuxedo", ("#8a5228", "#6a3c1c", "#efe9dd"), "#4a2c16", "#4a3028",
                               "folded", 0.07, DOG, (2.2, 0.24), 0.75),
}
POSES = {
    "stand": Pose(
        (0, 2.1, -1.5), (0, 2.15, 0.9), (0, 3.45, 1.9),
        ((0.5, 1.9, 1.0), (0.52, 1.0, 0.9), (0.52, 0.25, 1.0), (0.52, 0.2, 1.3)),
        ((0.45, 1.9, -1.4), (0.56, 1.15, -1.1), (0.54, 0.6, -1.7), (0.54, 0.2, -1.4)), (20, 90), 0.3),
    "sit": Pose(
        (0, 0.95, -0.9), (0, 2.1, 0.4), (0, 3.55, 0.85),
        ((0.42, 2.0, 0.5), (0.44, 1.1, 0.7), (0.4, 0.25, 0.8), (0.4, 0.2, 1.1)),
        ((0.6, 0.9, -0.7), (0.85, 0.9, 0.15), (0.85, 0.3, -0.1), (0.8, 0.2, 0.65)), (0, 75), 0.35),
    "lie": Pose(
        (0, 0.9, -1.5), (0, 1.05, 0.9), (0, 2.4, 1.5),
        ((0.55, 0.8, 0.9), (0.65, 0.35, 0.6), (0.5, 0.25, 1.6), (0.48, 0.23, 2.1)),
        ((0.55, 0.8, -1.3), (0.85, 0.75, -0.5), (0.9, 0.25, -1.1), (0.9, 0.22, -0.3)), (0, 85), 0.2),
    "rest": Pose(
        (0, 0.9, -1.5), (0, 0.95, 0.7), (0, 1.3, 1.75),
        ((0.6, 0.7, 0.9), (0.75, 0.35, 0.7), (0.72, 0.22, 1.7), (0.6, 0.2, 2.3)),
        ((0.55, 0.8, -1.3), (0.85, 0.75, -0.5), (0.9, 0.25, -1.1), (0.9, 0.22, -0.3)), (0, 85), 0.15),
}
LIMB_RADII = {"fore": (0.45, 0.29, 0.24, 0.25), "hind": (0.62, 0.42, 0.26, 0.24)}
# Of a head that looks along the third axis, the left half: zone, blend, and a chain of (x, y, z, radius).
SKULLS = {
    "cat": (
        (HEAD, 0.1, ((0, 0.05, 0, 0.86), (0.3, 0, 0, 0.8))),
        (HEAD, 0.25, ((0.42, -0.3, 0.22, 0.52),)),  # cheek
        (HEAD, 0.2, ((0, 0.2, 0.68, 0.2), (0, -0.2, 0.82, 0.17))),  # bridge of the nose
        (HEAD, 0.08, ((0.16, -0.38, 0.76, 0.25),)),  # pad of the whiskers
        (HEAD, 0.1, ((0, -0.58, 0.66, 0.2),)),  # chin
        (NOSE, 0.03, ((0, -0.25, 0.97, 0.085), (0.07, -0.2, 0.95, 0.07))),
    ),
    "dog": (  # what lies before z = 0.45 moves out with the muzzle
        (HEAD, 0.1, ((0, 0.12, -0.1, 0.82), (0.18, 0.1, -0.1, 0.8))),
        (HEAD, 0.3, ((0.3, -0.25, 0.15, 0.5),)),  # cheek
        (HEAD, 0.15, ((0.26, 0.4, 0.5, 0.22),)),  # brow
        (HEAD, 0.25, ((0, -0.2, 0.45, 0.46), (0, -0.3, 1, 0.31))),  # muzzle
        (HEAD, 0.12, ((0.2, -0.42, 0.7, 0.27), (0.15, -0.45, 0.98, 0.24))),  # lip
        (NOSE, 0.04, ((0, -0.2, 1.2, 0.17), (0.1, -0.18, 1.17, 0.15))),
    ),
}
EARS = {
    "upright": ((0.5, 0.5, 0, 0.36), (0.78, 1.38, 0.05, 0.05)),
    "small": ((0.55, 0.52, 0, 0.34), (0.84, 1.18, 0.08, 0.07)),
    "tall": ((0.55, 0.45, 0, 0.42), (0.95, 1.55, 0.05, 0.06)),
    "floppy": ((0.66, 0.55, -0.1, 0.2), (0.98, 0.3, 0, 0.25), (1, -0.35, 0.1, 0.27), (0.95, -0.6, 0.1, 0.2)),
    "long": ((0.68, 0.4, -0.1, 0.2), (0.98, 0, 0, 0.26), (1.05, -0.75, 0.1, 0.33), (1.0, -1.1, 0.15, 0.24)),
    "folded": ((0.6, 0.6, 0, 0.24), (0.9, 0.8, 0.05, 0.2), (1.08, 0.45, 0.25, 0.19), (1.05, 0.2, 0.3, 0.1)),
    "pricked": ((0.45, 0.6, -0.2, 0.34), (0.6, 1.5, -0.1, 0.08)),
}
EYES = {"cat": Eye(0.45, 0.08, 0.25, 0.19, 0.3), "dog": Eye(0.42, 0.36, 0.17, 0.15, 0.05)}
# fmt: on


class RoundCone(NamedTuple):
    """A round cone from `a` to `b`, and what the coat has to know of it."""

    zone: int
    a: np.ndarray
    b: np.ndarray
    radii: tuple[float, float]
    blend: float  # how widely it melts into its neighbours
    chain_distance: tuple[float, float]  # way along its chain, at either end
    chain_fraction: tuple[float, float]  # the same as a share of the chain


class Animal(NamedTuple):
    """Parts in the view's frame (right, down, nearer), and the frames that the coat is painted in."""

    cones: list[RoundCone]
    body_rotation: np.ndarray  # (3, 3): from the body's frame into the view's
    head_rotation: np.ndarray  # (3, 3): from the head's
    head_centre: np.ndarray  # (3,): the head's centre
    dorsal: np.ndarray  # (3,): from belly to back, in the view
    scale: float = 1.0  # pixels along a radius of the head
    origin: np.ndarray | float = 0.0

    def to_pixels(self, scale: float, origin: np.ndarray) -> "Animal":
        """Move it from radii of its head to pixels."""
        parts = [
            part._replace(
                a=part.a * scale + origin,
                b=part.b * scale + origin,
                radii=(part.radii[0] * scale, part.radii[1] * scale),
                blend=part.blend * scale,
            )
            for part in self.cones
        ]
        return self._replace(
            cones=parts, head_centre=self.head_centre * scale + origin, scale=scale, origin=origin
        )


def _rotation_matrix(yaw: float, pitch: float, roll: float = 0.0) -> np.ndarray:
    """Turn side, up, forward into the view's right, down, nearer; angles in radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    around = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.diag([1, -1, 1]) @ nod @ around @ tilt


def _build_chain(zone: int, joints: np.ndarray, blend: float) -> list[RoundCone]:
    """Join the rows (x, y, z, radius) of `joints` by round cones; the first blends with what is there."""
    joints = np.asarray(joints, float)
    if len(joints) == 1:
        joints = np.concatenate([joints, joints + 1e-3])
    ways = np.concatenate([[0], np.linalg.norm(np.diff(joints[:, :3], axis=0), axis=1).cumsum()])
    parts = []
    for i, (a, b) in enumerate(pairwise(joints)):
        way = (ways[i], ways[i + 1])
        share = (way[0] / ways[-1], way[1] / ways[-1])
        radii = (float(a[3]), float(b[3]))
        parts.append(RoundCone(zone, a[:3], b[:3], radii, 0.05 if i else blend, way, share))
    return parts


def pose_animal(breed: Breed, rng: Generator) -> Animal:
    """Pose one animal, in radii of its head, above the origin."""
    name = rng.choice(list(POSES), p=[pose.probability for pose in POSES.values()])
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
    parts = _build_trunk(hip, chest, skull, broad, breed.fur_length) + _build_legs(
        pose, stretch, stride, breed.fur_length
    )
    parts += _build_tail(hip, broad, breed, name == "stand", rng)
    parts = [part._replace(a=body @ part.a, b=body @ part.b) for part in parts]
    skull = body @ skull
    parts += [
        part._replace(a=skull + head @ part.a, b=skull + head @ part.b) for part in _build_head(breed, rng)
    ]
    spine = (chest - hip) / np.linalg.norm(chest - hip)
    return Animal(parts, body, head, skull, body @ np.array([0, spine[2], -spine[1]]))


def _build_trunk(
    hip: np.ndarray, chest: np.ndarray, skull: np.ndarray, broad: float, fur: float
) -> list[RoundCone]:
    nape = skull + (chest - skull) * 0.3 + (0, 0, -0.25)
    radii = np.array([0.62 * broad**0.5, 0.95 * broad, 0.9 * broad, 0.88 * broad]) + fur
    return _build_chain(BODY, np.column_stack([[nape, chest, (chest + hip) / 2, hip], radii]), 0.35)


def _build_legs(pose: Pose, stretch: np.ndarray, stride: np.ndarray, fur: float) -> list[RoundCone]:
    """Four legs; `stride` (4,) moves their feet forward."""
    parts = []
    for number, step in enumerate(stride):
        limb = ("fore", "hind")[number % 2]
        joints = np.array(getattr(pose, limb)) * stretch * (1 if number < 2 else -1, 1, 1)
        joints[:, 1] = np.maximum(joints[:, 1], 0.2)
        joints[:, 2] += step * np.clip(1.6 - joints[:, 1], 0, 1.2)
        radii = np.array(LIMB_RADII[limb]) * stretch[0] ** 0.7 + 0.4 * fur
        parts += _build_chain(LEG, np.column_stack([joints, radii]), 0.22)
    return parts


def _build_tail(hip: np.ndarray, broad: float, breed: Breed, raised: bool, rng: Generator) -> list[RoundCone]:
    length, radius = breed.tail
    curl = rng.uniform(-0.3, 0.5, 5).cumsum()
    if raised:
        rise = rng.uniform(-0.8, 0.9) + curl
        steps = np.column_stack([np.full(5, rng.normal(0, 0.25)), np.sin(rise), -np.cos(rise)])
        start = hip + broad * np.array([0, 0.45, -0.7])
    else:  # it lies on the ground, swept to a side
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
    """Give the head's parts in its own frame."""
    reach = breed.muzzle * rng.uniform(0.9, 1.1)
    parts: list[RoundCone] = []
    for zone, blend, rows in (*SKULLS[breed.species], (EAR, 0.06, EARS[breed.ears])):
        joints = np.array(rows, float)
        if breed.species == "dog":
            joints[:, 2] += np.maximum(joints[:, 2] - 0.45, 0) * (reach / 0.55 - 1)
        if zone == HEAD:
            joints[:, 3] += 0.5 * breed.fur_length * (joints[:, 2] < 0.5)
        parts += _build_chain(zone, joints, blend)
        if joints[:, 0].any():
            parts += _build_chain(zone, joints * (-1, 1, 1, 1), blend)
    return parts + (_build_jaw(reach, rng) if breed.species == "dog" else [])


def _build_jaw(reach: float, rng: Generator) -> list[RoundCone]:
    """A dog's lower jaw, and its tongue where it pants."""
    pants = rng.random() < 0.45
    drop = rng.uniform(0.15, 0.3) if pants else 0.02
    jaw = _build_chain(HEAD, [(0, -0.5, 0.3, 0.26), (0, -0.56 - drop, 0.3 + 0.8 * reach, 0.19)], 0.06)
    if not pants:
        return jaw
    y, z = -0.5 - drop, 0.42 + 0.85 * reach
    return jaw + _build_chain(TONGUE, [(0, y, z - 0.35, 0.17), (0, y, z, 0.17), (0, y - 0.45, z, 0.15)], 0.05)


def choose_framing(animal: Animal, size: np.ndarray, rng: Generator) -> tuple[float, np.ndarray]:
    """Choose the pixels a radius of the head takes, and where the animal's origin lies (3,)."""
    ends = np.array([(part.a - radius, part.a + radius) for part in animal.cones for radius in part.radii])
    low, high = ends[:, 0].min(axis=0)[:2], ends[:, 1].max(axis=0)[:2]
    if rng.random() < 0.27:  # a portrait
        scale = rng.uniform(0.2, 0.28) * size.min()
    else:
        scale = max(rng.uniform(0.55, 0.95) * (size / (high - low)).min(), 0.155 * size.min())
    origin = rng.uniform(-0.2, 1.2, 2) * (size - (high - low) * scale) - low * scale
    skull = animal.head_centre[:2] * scale
    room = np.minimum(1.2 * scale, 0.45 * size)
    return float(scale), np.append(np.clip(origin + skull, room, size - room) - skull, 0)
