#!/usr/bin/env bash
# Belief: LittleCMS, through Pillow's ImageCms, converts 8-bit grey by an ICC profile to within one level, as it
#   converts RGB by a matrix profile of the same curve.
# Seen instead: With Pillow's defaults, dark greys of a linear grey profile come out at half of what the curve
#   says (stored level 1 becomes 6, not 13), while RGB of the same curve is right to a level. LittleCMS replaces
#   the exact conversion of grey by a coarse table unless it is told not to (the flag NOOPTIMIZE).
# Seen with: Pillow 13.0.0 with LittleCMS 2.19, NumPy 2.4.6, Python 3.11, 2026-11-28.
# Why it matters: Scans and grey renderings of hands are stored with such profiles, and what is dark in them would
#   be read too dark, with no error said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import io
import struct

import numpy as np
import PIL
from PIL import Image, ImageCms, features

print("Pillow", PIL.__version__, "LittleCMS", features.version("littlecms2"), "NumPy", np.__version__)


def fixed(*values):
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def profile(space, tags):
    place, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"", 0x04300000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + table + body


def xyz(*values):
    return b"XYZ \0\0\0\0" + fixed(*values)


linear = b"para" + struct.pack(">IHH", 0, 0, 0) + fixed(1.0)
white = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
grey = profile(b"GRAY", white | {b"kTRC": linear})
columns = {b"rXYZ": (0.4361, 0.2225, 0.0139), b"gXYZ": (0.3851, 0.7169, 0.0971), b"bXYZ": (0.1431, 0.0606, 0.7141)}
rgb = profile(
    b"RGB ",
    white | {name: xyz(*column) for name, column in columns.items()} | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), linear),
)
levels = np.arange(256, dtype=np.uint8)
light = levels / 255
right = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def off(what, pixels, mode, flags):
    source = ImageCms.ImageCmsProfile(io.BytesIO(what))
    turn = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    found = np.asarray(turn.apply(Image.fromarray(pixels)))[0, :, 1].astype(float)
    error = np.abs(found - right)
    print(f"{mode:4} flags {flags!r}: level 1 becomes {found[1]:.0f}, right is {right[1]:.1f}; worst error {error.max():.1f}")
    return error.max()


plain, exact = ImageCms.Flags.NONE, ImageCms.Flags.NOOPTIMIZE
of_grey = off(grey, levels[None], "L", plain)
of_grey_exact = off(grey, levels[None], "L", exact)
of_rgb = off(rgb, np.repeat(levels[None, :, None], 3, axis=2), "RGB", plain)
if not (of_grey > 5 and of_grey_exact <= 1.5 and of_rgb <= 1.5):
    raise SystemExit("Grey is converted otherwise now: this finding no longer holds.")
PY
"$work/venv/bin/python" "$work/look.py"
