"""The breeds, poses and anatomy of the synthetic pets, as tables."""

from dataclasses import dataclass
from typing import NamedTuple

BODY, LEG, TAIL, HEAD, EAR, NOSE, TONGUE = range(7)  # the zones of an animal
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Breed:
    """What a breed looks like; lengths are in radii of the head."""

    species: str
    pattern: str  # a key of fur.FUR_PATTERNS
    colours: tuple[str, str, str]  # of the fur: ground, pattern, light parts
    eyes: str
    nose: str
    ears: str  # a key of EARS
    fur_length: float  # 0.03 is smooth, 0.15 fluffy
    build: Vector  # factors of breadth, height and length
    tail: tuple[float, float]  # length, radius
    muzzle: float = 0.0  # length of a dog's muzzle


@dataclass(frozen=True)
class Pose:
    """The joints (side, up, forward) of the left half, in radii of the head; the right half mirrors them."""

    hip: Vector
    chest: Vector
    head: Vector
    fore: tuple[Vector, ...]
    hind: tuple[Vector, ...]
    yaw: tuple[float, float]  # degrees away from the viewer: minimum, maximum
    probability: float  # that an animal takes this pose


class Eye(NamedTuple):
    """The position of an eye on the head and its half axes: angles in radians."""

    side: float
    up: float
    width: float
    height: float
    slant: float


# fmt: off
SLIM, CAT, DOG, STOUT = (0.82, 0.95, 1.0), (0.92, 0.9, 0.95), (1.0, 1.12, 1.05), (1.2, 1.0, 0.95)
BREEDS = {  # the palettes of the species overlap, so that colour does not give the species away
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
# The left half of a head that looks along the third axis: zone, blend, and a chain of (x, y, z, radius).
SKULLS = {
    "cat": (
        (HEAD, 0.1, ((0, 0.05, 0, 0.86), (0.3, 0, 0, 0.8))),
        (HEAD, 0.25, ((0.42, -0.3, 0.22, 0.52),)),  # cheek
        (HEAD, 0.2, ((0, 0.2, 0.68, 0.2), (0, -0.2, 0.82, 0.17))),  # bridge of the nose
        (HEAD, 0.08, ((0.16, -0.38, 0.76, 0.25),)),  # pad of the whiskers
        (HEAD, 0.1, ((0, -0.58, 0.66, 0.2),)),  # chin
        (NOSE, 0.03, ((0, -0.25, 0.97, 0.085), (0.07, -0.2, 0.95, 0.07))),
    ),
    "dog": (  # what is beyond z = 0.45 moves forward with the length of the muzzle
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
