"""Errors by skin tone: does a model serve some hands worse than others?

Tone is the individual typology angle (ITA) of the hand's mean colour *as the picture shows it*, light and
exposure included, in the classes of Del Bino and Bernerd, "Variations in skin colour and the biological
consequences of ultraviolet radiation exposure", 2013. It is known where the dataset says what colour each
hand has, as SynthHand does.
"""

from typing import Any

import numpy as np

from davae.metrics import bootstrap_interval
from synthhand.render.appearance import ita_degrees

# From light to dark: the class and the ITA, in degrees, above which it begins.
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
    """Return for each mean colour (n, 3), sRGB on [0, 1], the index (n,) of its class in `CLASSES`.

    A hand of which not one pixel shows, whose colour is all zeros, is of no class: -1.
    """
    colours = np.asarray(colours)
    lower = np.array(list(CLASSES.values()))
    member = np.argmax(ita_degrees(colours)[:, None] > lower, axis=1)
    return np.where(colours.any(axis=1), member, -1)


def skin_tone_report(
    colours, errors_mm: np.ndarray, squared_errors: np.ndarray, grey_errors: np.ndarray
) -> dict[str, Any]:
    """Return both errors over all images and by class of skin tone, with their ratios to those over all.

    A picture's error grows with the square of the hand's contrast to the grey around it, so that hands far
    from grey would have the larger error if all were drawn equally well. So the share of a plain grey
    picture's error that is left is given, too.

    Args:
        colours: (n, 3) mean colour of each hand in its picture, sRGB on [0, 1]; zeros for a hand of which not
            one pixel shows, which is left out.
        errors_mm: (n,) mean joint error of each hand.
        squared_errors: (n,) mean squared error of each picture on [0, 1] against its target, the hand over
            grey, over all pixels: no mask chooses among them.
        grey_errors: (n,) the same of a picture that is grey all over.

    Raises:
        ValueError: lengths that differ.
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
    classes = {}
    for index, name in enumerate(CLASSES):
        own = member == index
        classes[name] = {"n": int(own.sum())}
        for error, values in errors.items():
            mean = float(values[own].mean()) if own.any() else None
            classes[name] |= {
                error: mean,
                f"{error}_interval": list(bootstrap_interval(values[own])) if own.any() else None,
                f"{error}_ratio": None if mean is None else mean / overall[error],
            }
        share = classes[name]["squared_error"] / float(grey[own].mean()) if own.any() else None
        classes[name]["share_of_grey"] = share
    return {**overall, "classes": classes}


def format_skin_tone(found: dict[str, Any]) -> str:
    """Return the report as a short plain text table, or why there is none."""
    if "absent" in found:
        return f"errors by skin tone: {found['absent']}\n"
    lines = [
        "errors by skin tone (ITA of the hand's mean colour), and their ratios to the mean over all hands",
        f"{'':<13}{'ITA':>13}{'n':>7}{'EPE P1 mm':>12}{'ratio':>7}{'picture':>10}{'ratio':>7}{'left':>7}",
    ]
    upper = None
    for name, values in found["classes"].items():
        low = CLASSES[name]
        angle = f"over {low:g}°" if upper is None else f"{low:g}° to {upper:g}°"
        angle = angle if np.isfinite(low) else f"up to {upper:g}°"
        upper = low
        if values["n"]:
            cells = f"{values['epe_mm']:>12.2f}{values['epe_mm_ratio']:>7.2f}"
            cells += f"{values['squared_error']:>10.4f}{values['squared_error_ratio']:>7.2f}"
            cells += f"{values['share_of_grey']:>7.0%}"
        else:
            cells = f"{'-':>12}{'-':>7}{'-':>10}{'-':>7}{'-':>7}"
        lines.append(f"{name:<13}{angle:>13}{values['n']:>7}{cells}")
    total = sum(values["n"] for values in found["classes"].values())
    lines.append(
        f"{'all':<13}{'':>13}{total:>7}{found['epe_mm']:>12.2f}{'':>7}{found['squared_error']:>10.4f}"
        f"{'':>7}{found['share_of_grey']:>7.0%}"
    )
    lines += [
        "(picture: mean squared error over all pixels, on [0, 1], of the hand over grey; left: its share of",
        "the error of a picture that is all grey, which is larger for the lightest and the darkest hands)",
    ]
    return "\n".join(lines) + "\n"
