"""Shading: how much light reaches the bodies, and the colour that they show.

Shadow and ambient light are gathered at the vertices, over a wide light, and interpolated: soft, and free of
noise.
"""

import numpy as np
from scipy import sparse

from synthhand.model.body import incidence
from synthhand.model.rig import Rig
from synthhand.render.appearance import Skin, Surface, shade_skin
from synthhand.render.clothing import Dressed, shade_dressed
from synthhand.render.light import Light, golden_fraction, sample_disc, sample_hemisphere
from synthhand.render.material import Material, shade_material
from synthhand.render.raycast import Hits, Mesh, dot

Look = Skin | Dressed | Material

# Gathering of light
LIGHT_SAMPLES = 2  # rays per vertex to the key light
SKY_SAMPLES = 2  # rays per vertex to the sky
LIFT_MM = 1.2  # distance from the skin at which rays start, so that they do not meet it
SKY_REACH_MM = 55.0  # surfaces farther away block no light of the sky
SMOOTHINGS = 2  # number of averages over neighbouring triangles: few rays are noisy

# Diffuse light; triples are for red, green and blue.
WRAP = (0.34, 0.17, 0.11)  # cosine beyond 90 degrees that the key light still reaches: red goes furthest
BLEED = (0.25, 0.0, -0.08)  # by how much it lightens the borders of shadows
FILL_WRAP = 0.2  # as WRAP, for the second light
HARD_WRAP = 0.06  # WRAP of things, which light does not enter; their BLEED is 0
AMBIENT_BLEED = 0.8  # share of BLEED that ambient shadows get
LEAST_SKY = 0.15  # share of the ambient light that arrives where no sky is seen

# Highlights: the key light's is a sum of two lobes, cos^12 (broad) and cos^48 (sharp) of the half-way angle;
# the sky's is a rim, (1 - cos)^4 of the angle to the viewer.
BROAD_LOBE, SHARP_LOBE, RIM = 0.6, 1.4, 0.9


def gather_light(mesh: Mesh, light: Light, hits: Hits) -> np.ndarray:
    """Return the shares (v, 2) of key light and of sky that reach the vertices of the triangles met."""
    seen, chosen_faces = np.zeros(len(mesh.vertices), bool), np.zeros(len(mesh.faces), bool)
    chosen_faces[hits.triangles] = True
    faces = mesh.faces.take(np.flatnonzero(chosen_faces), axis=0)
    seen[faces] = True
    chosen = np.flatnonzero(seen)
    normals = mesh.normals[chosen]
    origins = mesh.vertices[chosen] + LIFT_MM * normals
    turn = golden_fraction(chosen) * np.float32(2 * np.pi)
    values = np.zeros((len(seen), 3), np.float32)  # key light, sky, and whether they were gathered
    # What faces away from the light by more than it wraps around lies in its own shadow: no ray needed.
    lit = np.flatnonzero(normals @ light.key_direction.astype(np.float32) > -WRAP[0])
    aim = sample_disc(light.key_direction, light.key_width, turn[lit], LIGHT_SAMPLES)
    values[chosen[lit], 0] = 1 - mesh.measure_occlusion(origins[lit], aim)
    around = sample_hemisphere(normals, turn, SKY_SAMPLES)
    values[chosen, 1] = 1 - mesh.measure_occlusion(origins, around, SKY_REACH_MM)
    values[chosen, 2] = 1
    corners = incidence(faces, len(seen))
    for _ in range(SMOOTHINGS):
        values = corners @ (corners.T @ values)
    return values[:, :2] / values[:, 2:].clip(1e-6)


def shade(
    mesh: Mesh,
    rig: Rig,
    looks: Look | list[Look],
    light: Light,
    received: np.ndarray,
    rays: np.ndarray,
    hits: Hits,
) -> np.ndarray:
    """Return the linear colour (3, n) of the points met: diffuse light that bleeds red, highlight, faint rim.

    Args:
        mesh: the bodies.
        rig: the hand they were made from, but for things.
        looks: the appearance of all bodies, or of each.
        light: the light.
        received: (v, 2) shares of key light and of sky, from `gather_light`.
        rays: (n, 3) directions of the rays that met something.
        hits: what they met.
    """
    carried = np.concatenate([mesh.normals, mesh.rest, mesh.palmar[:, None], received], axis=1)
    n = len(rays)
    between = sparse.csr_array(
        (hits.weights.ravel(), hits.corners.ravel(), np.arange(0, 3 * n + 1, 3, dtype=hits.corners.dtype)),
        (n, len(carried)),
    )
    # One long row per coordinate (9, n): NumPy is several times faster along those.
    values = np.ascontiguousarray((between @ carried).T)
    normal, (key, sky) = _normalise(values[:3]), values[7:]
    surface = Surface(values[3:6], mesh.parts[hits.nearest], values[6])
    albedo, gloss, hard = _look_up(looks, rig, surface, mesh.body, hits)
    view = _normalise(-np.ascontiguousarray(rays.T))
    to_light = light.key_direction.astype(np.float32)[:, None]
    facing = dot(normal, to_light)
    shine = dot(normal, _normalise(view + to_light)).clip(0)
    shine_12 = _raise_to_4(shine * shine * shine)
    lobe = (BROAD_LOBE * shine_12 + SHARP_LOBE * _raise_to_4(shine_12)) * key * (facing > 0)
    rim = RIM * _raise_to_4(1 - dot(normal, view).clip(0, 1)) * sky
    up = 0.5 - 0.5 * normal[1]
    open_sky = LEAST_SKY + (1 - LEAST_SKY) * sky
    # The second light has no rays of its own: where little of the sky is seen, it reaches little.
    filled = dot(normal, light.fill_direction.astype(np.float32)[:, None])
    second = (filled + FILL_WRAP).clip(0) * (open_sky * (1 / (1 + FILL_WRAP)))
    lights = (light.key_colour, light.fill_colour, light.sky_colour, light.ground_colour, WRAP, BLEED)
    colour = np.empty_like(albedo)
    for k, (bright, weak, above, below, wrap, bleed) in enumerate(
        [float(x) for x in channel] for channel in zip(*lights, strict=True)
    ):
        # Shadows are reddish at their borders: x + b x (1 - x), close to the power x^(1 - b).
        diffuse = ((facing + wrap) * (1 / (1 + wrap))).clip(0) * (key + bleed * key * (1 - key))
        if hard is not None:  # light stops at the surface of things
            diffuse = np.where(hard, ((facing + HARD_WRAP) * (1 / (1 + HARD_WRAP))).clip(0) * key, diffuse)
        tinted_sky = open_sky + AMBIENT_BLEED * bleed * open_sky * (1 - open_sky)
        ambient = (below + (above - below) * up) * tinted_sky
        colour[k] = albedo[k] * (diffuse * bright + second * weak + ambient) + gloss * (
            lobe * bright + rim * above
        )
    return colour


def _look_up(
    looks: Look | list[Look], rig: Rig, at: Surface, body: np.ndarray, hits: Hits
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return reflectance (3, n), gloss (n,), and where (n,) things are met, or None where there are none."""
    several = looks if isinstance(looks, list) else [looks]
    distinct = list({id(look): look for look in several}.values())
    if len(distinct) == 1 and not isinstance(distinct[0], Material):
        return *_shade_skin_of(distinct[0], rig, at), None
    owners = body.take(hits.nearest)
    colour, gloss = np.zeros((3, len(owners)), np.float32), np.zeros(len(owners), np.float32)
    hard = np.zeros(len(owners), bool)
    for look in distinct:
        own = np.isin(owners, [b for b, other in enumerate(several) if other is look])
        if len(chosen := np.flatnonzero(own)) == 0:
            continue
        if isinstance(look, Material):
            hard |= own
            part, gloss[chosen] = shade_material(look, at.take(chosen))
        else:
            part, gloss[chosen] = _shade_skin_of(look, rig, at.take(chosen))
        for channel, values in zip(colour, part, strict=True):
            channel[chosen] = values
    return colour, gloss, hard if hard.any() else None


def _shade_skin_of(look: Skin | Dressed, rig: Rig, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    return shade_dressed(look, rig, at) if isinstance(look, Dressed) else shade_skin(look, rig, at)


def _normalise(a: np.ndarray) -> np.ndarray:
    """Scale the columns of a (3, n) to length 1."""
    return a / np.sqrt(dot(a, a)).clip(1e-6)


def _raise_to_4(x: np.ndarray) -> np.ndarray:
    square = x * x
    return square * square
