"""Errors by skin tone: does a model serve some hands worse than others?

Skin tone is the individual typology angle (ITA) of the hand's mean colour *as the image shows it*, including
light and exposure. The classes are those of Del Bino and Bernerd, "Variations in skin colour and the
biological consequences of ultraviolet radiation exposure", 2013. The tone is known only if the dataset
records the mean colour of each hand, as SynthHand does.
"""

from typing import Any

import numpy as np

from davae.evaluation.compare import mean_with_interval
from davae.evaluation.text_table import format_rows
from synthhand.render.appearance import ita_degrees

# From light to dark: class -> lower limit of its ITA, in degrees.
CLASSES = {
    "very light": 55.0,
    "light": 41.0,
    "intermediate": 28.0,
    "tan": 10.0,
    "brown": -30.0,
    "dark": -np.inf,
}
COLOUR_FACTOR = "appearance/mean_colour"  # of SynthHand


def skin_tone_classes(colours) -> np.ndarray:
    """Return the index (n,) in `CLASSES` of the class of each mean colour (n, 3), sRGB on [0, 1].

    A colour of zeros, which marks a hand without a visible pixel, has no class: its index is -1.
    """
    colours = np.asarray(colours)
    lower = np.array(list(CLASSES.values()))
    member = np.argmax(ita_degrees(colours)[:, None] > lower, axis=1)
    return np.where(colours.any(axis=1), member, -1)


def skin_tone_report(
    colours, errors_mm: np.ndarray, squared_errors: np.ndarray, grey_errors: np.ndarray
) -> dict[str, Any]:
    """Return joint and image errors over all images and for each class of skin tone.

    The error of an image grows with the square of the hand's contrast to the grey around it. Even if all
    hands were drawn equally well, those furthest from grey would have the largest error. Therefore the report
    also gives `share_of_grey`: the error as a share of the error of a plain grey image.

    Args:
        colours: (n, 3) mean colour of each hand in its image, sRGB on [0, 1]. Zeros mark a hand without a
            visible pixel, which is left out.
        errors_mm: (n,) mean joint error of each hand.
        squared_errors: (n,) mean squared error of each decoded image on [0, 1], over all pixels, against its
            target, the hand over grey.
        grey_errors: (n,) the same for a plain grey image.

    Returns:
        epe_mm, squared_error and share_of_grey over all images, and `classes`: class -> n, the same three,
        and the interval and the ratio to the overall value of the first two. Values of an empty class are
        None.

    Raises:
        ValueError: the lengths differ.
    """
    colours = np.asarray(colours)
    n = len(colours)
    lengths = [len(errors_mm), len(squared_errors), len(grey_errors)]
    if colours.shape != (n, 3) or set(lengths) != {n}:
        raise ValueError(f"colours are {colours.shape} and the errors {lengths} long, expected (n, 3) and n")
    seen = colours.any(axis=1)
    errors = {"epe_mm": np.asarray(errors_mm, float)[seen]}
    errors["squared_error"] = np.asarray(squared_errors, float)[seen]
    overall = {name: float(values.mean()) for name, values in errors.items()}
    grey = np.asarray(grey_errors, float)[seen]
    overall["share_of_grey"] = overall["squared_error"] / float(grey.mean())
    member = skin_tone_classes(colours[seen])
    classes: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(CLASSES):
        own = member == index
        classes[name] = {"n": int(own.sum())}
        for error, values in errors.items():
            classes[name] |= mean_with_interval(error, values[own])
            mean = classes[name][error]
            classes[name][f"{error}_ratio"] = None if mean is None else mean / overall[error]
        share = classes[name]["squared_error"] / float(grey[own].mean()) if own.any() else None
        classes[name]["share_of_grey"] = share
    return {**overall, "classes": classes}


def format_skin_tone(found: dict[str, Any]) -> str:
    """Return the report as a plain text table, or the reason why there is none."""
    if "absent" in found:
        return f"errors by skin tone: {found['absent']}\n"
    rows, upper = [], None
    for name, values in found["classes"].items():
        low = CLASSES[name]
        angle = f"over {low:g}°" if upper is None else f"{low:g}° to {upper:g}°"
        angle = angle if np.isfinite(low) else f"up to {upper:g}°"
        upper = low
        cells = ("-",) * 5
        if values["n"]:
            cells = (
                f"{values['epe_mm']:.2f}", f"{values['epe_mm_ratio']:.2f}", f"{values['squared_error']:.4f}",
                f"{values['squared_error_ratio']:.2f}", f"{values['share_of_grey']:.0%}",
            )  # fmt: skip
        rows.append((name, angle, str(values["n"]), *cells))
    total = str(sum(values["n"] for values in found["classes"].values()))
    overall = (
        f"{found['epe_mm']:.2f}",
        "",
        f"{found['squared_error']:.4f}",
        "",
        f"{found['share_of_grey']:.0%}",
    )
    columns = ("", "ITA", "n", "EPE P1 mm", "ratio", "image", "ratio", "of grey")
    lines = [
        "errors by skin tone (ITA of the hand's mean colour), and their ratios to the mean over all hands",
        format_rows(columns, [*rows, ("all", "", total, *overall)]),
        "(image: mean squared error on [0, 1], over all pixels, of the hand over grey; of grey: that error",
        "over the error of a plain grey image, which is larger for the lightest and the darkest hands)",
    ]
    return "\n".join(lines) + "\n"
