#!/usr/bin/env bash
# Belief: Ctrl-C while `import open3d` runs, which takes seconds, raises KeyboardInterrupt, as in any import; so code
#   that falls back where Open3D is missing (`except ImportError`) does not take the user's Ctrl-C for that.
# Seen instead: within the start of its compiled module, which imports typing, NumPy and more, Ctrl-C comes out as
#   ImportError("initialization failed"), whose cause is the KeyboardInterrupt. A program with a fallback continues
#   without Open3D, and the Ctrl-C is lost. Where NumPy's own compiled start is interrupted, even the cause is an
#   ImportError, on "a bad install". Before and after, and in trimesh, which is Python, it is KeyboardInterrupt.
# Seen with: open3d-cpu 0.19.0, numpy 2.4.6, trimesh 4.12.2, Python 3.11, 2026-11-30.
# Why it matters: hand-pose programs import Open3D only to show a mesh and are often stopped while they start. davae
#   itself ended such a Ctrl-C with a traceback until it looked at the cause.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check open3d-cpu==0.19.0 numpy==2.4.6 trimesh==4.12.2
cat > "$work/press.py" <<'PY'
"""Import a module and press Ctrl-C when another one is first imported; print what comes out, and its cause."""

import importlib
import signal
import sys

module, moment = sys.argv[1:]


def press(event, arguments):
    if event == "import" and arguments[0] == moment:
        signal.raise_signal(signal.SIGINT)


signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(press)
try:
    importlib.import_module(module)
except (ImportError, KeyboardInterrupt) as raised:
    print(type(raised).__name__, "because of", type(raised.__cause__).__name__)
else:
    print("nothing")
PY
"$work/venv/bin/pip" list 2>/dev/null | grep -iE "^(open3d|numpy|trimesh)"
check() {
	seen=$("$work/venv/bin/python" "$work/press.py" "$1" "$2")
	echo "import $1, Ctrl-C when it comes to import $2: $seen"
	if [ "$seen" != "$3" ]; then
		echo "This is no longer: $3." >&2
		exit 1
	fi
}
check trimesh numpy "KeyboardInterrupt because of NoneType"
check open3d open3d.cpu.pybind "KeyboardInterrupt because of NoneType"
check open3d typing "ImportError because of KeyboardInterrupt"
check open3d numpy "ImportError because of KeyboardInterrupt"
check open3d datetime "ImportError because of ImportError"
check open3d open3d.ml "KeyboardInterrupt because of NoneType"
