"""Read pickles of arrays without running anything in them.

Annotations of RHD and MANO's hand model are pickles, and a pickle is a program. The reader below admits NumPy
arrays and plain containers. Objects of packages that the caller names become `StandIn`s, which keep the
object's state and run nothing; `to_array` extracts the numbers of chumpy's and scipy.sparse's objects.
"""

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synthhand.formats.kinds import kind_of_file

_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_DENSE_ELEMENTS = 10**8  # largest size of a sparse matrix as an array: more than any hand model's


class UnsafePickle(ValueError):
    """A pickle refers to something other than NumPy arrays and plain containers. Nothing of it was run."""


class StandIn:
    """Takes the place of an object; keeps its stored state and runs none of its class.

    Attributes:
        origin: "module.class" of the object.
        state: the stored state, mostly a dict of attributes; None if there is none.
    """

    origin = "unknown"
    state: Any = None

    def __init__(self, *arguments: Any):
        """Ignore the arguments of the class."""

    def __setstate__(self, state: Any):
        self.state = state


def load_pickle(path: str | os.PathLike, kind: str, origin: str, stand_ins: tuple[str, ...] = ()) -> Any:
    """Read a pickle without running anything in it.

    Text in pickles of Python 2 is read as latin-1, which keeps the bytes of arrays.

    Args:
        path: the file.
        kind: kind of file, for messages: "annotation file".
        origin: a trusted source, for messages: "the authors of the dataset".
        stand_ins: packages whose objects are read as `StandIn`s.

    Raises:
        UnsafePickle: it refers to a class or function other than these.
        ValueError: it is damaged.
        OSError: it cannot be opened.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        return _ArraysOnly(content, stand_ins).load()
    except UnsafePickle as refusal:
        raise UnsafePickle(
            f"{path}: {refusal}. It was refused and nothing in it was run; use only files that come from "
            f"{origin}"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        found = kind_of_file(path, apart_from="pickle")
        if found:
            raise ValueError(f"{path}: is {found}; expected a pickle, the {kind}") from error
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: damaged {kind} ({reason}); copy or download it again") from error


def to_array(value: Any) -> NDArray:
    """Return an array as it is, and the array in a stand-in for a chumpy or scipy.sparse object.

    Raises:
        ValueError: the value is neither, or its parts do not fit together.
    """
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    state = value.state if isinstance(value, StandIn) and isinstance(value.state, dict) else {}
    if "x" in state:  # chumpy.Ch, an array with data for its derivatives
        return to_array(state["x"])
    if {"a", "idxs"} <= state.keys():  # chumpy.reordering.Select, a.ravel()[idxs]
        return to_array(state["a"]).ravel()[to_array(state["idxs"])].reshape(state.get("preferred_shape", -1))
    origin = value.origin if isinstance(value, StandIn) else type(value).__name__
    if origin == "chumpy.reordering.Reshape":
        return to_array(state["a"]).reshape(state["newshape"])
    if origin == "chumpy.reordering.transpose":
        return to_array(state["a"]).transpose(state.get("axes"))
    if origin.startswith("scipy.sparse"):
        return _expand_sparse(origin, state)
    raise ValueError(f"holds {origin} where an array is expected")


def _expand_sparse(origin: str, state: dict[str, Any]) -> NDArray:
    """Return the array of a scipy.sparse matrix or array, of any version of SciPy, from its state.

    Raises:
        ValueError: its form is not read here, or its parts do not fit together.
    """
    from scipy import sparse  # slow to import

    form = origin.rpartition(".")[2].partition("_")[0]  # csc of "scipy.sparse._csc.csc_matrix"
    shape = state.get("_shape", state.get("shape"))
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"holds {origin} of shape {shape!r}; expected counts of rows and columns")
    if math.prod(shape) > _DENSE_ELEMENTS:
        raise ValueError(f"holds {origin} of shape {shape}; expected {_DENSE_ELEMENTS:,} numbers at most")
    if form in ("csc", "csr", "bsr"):
        parts = tuple(to_array(state[key]) for key in ("data", "indices", "indptr"))
        matrix = getattr(sparse, f"{form}_matrix")(parts, shape=shape)
        matrix.check_format(full_check=True)  # indices beyond the shape would be written out of bounds
    elif form == "coo":
        places = state["coords"] if "coords" in state else (state["row"], state["col"])  # before SciPy 1.13
        matrix = sparse.coo_matrix((to_array(state["data"]), tuple(map(to_array, places))), shape=shape)
    elif form == "dia":
        matrix = sparse.dia_matrix((to_array(state["data"]), to_array(state["offsets"])), shape=shape)
    else:  # dok and lil hold Python objects
        raise ValueError(f"holds {origin}; store it as an array, or by its method tocsc()")
    return matrix.toarray()


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that admits NumPy arrays, dtypes, scalars and plain containers, and nothing else.

    Classes of the packages in `stand_ins` become `StandIn`s; these packages are not imported.
    """

    def __init__(self, content: bytes, stand_ins: tuple[str, ...] = ()):
        _check_sizes(content)
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._stand_ins = stand_ins
        self._classes: dict[str, type] = {}  # not shared, since a pickle may set their attributes

    def find_class(self, module: str, name: str) -> Any:
        found = self._find_admitted(module, name)
        return _wrap(found) if isinstance(found, FunctionType) else found

    def _find_admitted(self, module: str, name: str) -> Any:
        package, _, rest = module.partition(".")
        if package == "numpy":
            if (module, name) == ("numpy", "dtype"):
                return _Dtype
            if (module, name) in _ARRAY_CLASSES:
                return f"numpy.{name}"  # an argument of `_reconstruct`, never called
            layer, _, leaf = rest.partition(".")
            if layer in ("core", "_core") and (leaf, name) in _ADMITTED:
                return _ADMITTED[leaf, name]
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("collections", "defaultdict"):
            return _defaultless
        if self._stand_ins:
            if package in self._stand_ins:
                origin = f"{module}.{name}"
                return self._classes.setdefault(origin, type("StandIn", (StandIn,), {"origin": origin}))
            if module in ("builtins", "__builtin__") and name == "object":
                return object
            if module in ("copyreg", "copy_reg") and name == "_reconstructor":
                return _empty_stand_in  # protocols 0 and 1 make objects by it
        raise UnsafePickle(
            f"the pickle refers to {module}.{name}, neither a NumPy array nor a plain container"
        )


def _wrap(function: FunctionType) -> Callable:
    """Return a new function for each pickle, since a pickle may set its attributes."""
    return lambda *arguments: function(*arguments)


def _check_sizes(content: bytes) -> None:
    """Raise ValueError for a huge memo index, or a text longer than the file.

    The C unpickler would fill memory up to the one, and ask for as much as the other. Walking through RHD's
    41,258 annotations takes about four seconds, three times as long as reading them.

    `pickletools.genops` would do, but it takes texts of protocol 0 for ASCII; Python 2 wrote any bytes.
    """
    file = io.BytesIO(content)
    while opcode := _OPCODES.get(file.read(1).decode("latin-1")):
        if opcode.name == "STRING":
            file.readline()
            continue
        argument: Any = opcode.arg.reader(file) if opcode.arg else None
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
            raise ValueError(f"it numbers an object {argument}, more than its {len(content)} bytes can hold")
        if opcode.name == "STOP":
            return
    raise ValueError("it ends early, or has a code that no pickle has")


def _empty_stand_in(kind: Any, base: Any, state: Any) -> StandIn:
    """Stand in for `copyreg._reconstructor`."""
    if not (isinstance(kind, type) and issubclass(kind, StandIn) and base is object):
        name = getattr(kind, "origin", repr(kind))
        raise UnsafePickle(f"the pickle makes an object of {name}, neither an array nor a container")
    return kind()


class _Dtype:
    """Stand in for `numpy.dtype`, whose `__setstate__` trusts sizes and flags of the pickle.

    A pickle could use them to make NumPy treat numbers as addresses. Only byte order and units of time are
    read here.
    """

    def __init__(self, spec: str, *flags: Any):
        if not isinstance(spec, str) or (kind := np.dtype(spec)).hasobject:
            raise UnsafePickle("the pickle holds an array of Python objects; expected numbers")
        if kind.subdtype or kind.names is not None:
            raise UnsafePickle("the pickle holds an array of records; expected numbers")
        self.dtype = kind

    def __setstate__(self, state: tuple):
        _, order, subarray, names, fields, *rest = state
        if any(part is not None for part in (subarray, names, fields)):
            named = f" with fields {', '.join(names)}" if names else ""
            raise UnsafePickle(f"the pickle holds an array of records{named}; expected numbers")
        if self.dtype.kind in "mM" and rest[-1][1][0] != b"generic":
            unit, count, *_ = rest[-1][1]
            self.dtype = np.dtype(f"{self.dtype.kind}8[{int(count)}{unit.decode()}]")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array whose stored state is checked; pickled again, it is a plain array."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)

    def __setstate__(self, state: tuple):
        version, shape, kind, by_columns, data = state
        if not all(isinstance(size, int) and size >= 0 for size in shape) or not isinstance(
            data, bytes | str
        ):
            raise ValueError(f"an array of shape {shape} holds {type(data).__name__}")
        state = (version, shape, kind.dtype, bool(by_columns), data)
        super().__setstate__(state)  # type: ignore[arg-type]  # the stub excludes text, which Python 2 stored


def _reconstruct(*arguments: Any) -> _Array:
    """Stand in for NumPy's function that makes empty arrays, filled afterwards."""
    return _Array(0)


def _scalar(kind: _Dtype, data: bytes | str) -> Any:
    """Stand in for NumPy's function that makes scalars; Python 2 stored their bytes as text."""
    if not kind.dtype.itemsize:  # empty text
        return np.zeros((), kind.dtype)[()]
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind.dtype, 1)[0]


def _frombuffer(
    data: bytes,
    kind: _Dtype,
    shape: tuple[int, ...],
    order: Literal["C", "F"],
    axes: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Stand in for NumPy's function that makes arrays under protocol 5; newer NumPy passes `axes`, too."""
    values = np.frombuffer(data, kind.dtype)
    if axes is not None:
        return values.reshape(shape).transpose(axes)
    return values.reshape(shape, order=order)


def _defaultless(*factory: Any) -> dict:
    """Stand in for `collections.defaultdict` by a dict; its items follow in the pickle."""
    return {}


def _bytes(*content: Any) -> bytes:
    """Stand in for `bytes`, which Python 3 calls for empty ones under protocols 0 to 2."""
    if content:
        raise UnsafePickle("the pickle calls bytes with arguments, expected none")
    return b""


def _bytearray(content: bytes = b"", encoding: str = "latin1") -> bytearray:
    """Stand in for `bytearray`, which would allocate as many bytes as a number says."""
    return bytearray(_latin1_bytes(content, encoding) if isinstance(content, str) else memoryview(content))


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, by which Python 3 stores bytes under protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickle(f"the pickle uses the codec {encoding!r}, expected latin1")
    return text.encode("latin1")


# The functions that pickles of NumPy arrays and scalars call, by the module names of NumPy 1 and 2.
_ADMITTED = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _frombuffer,
}
_ARRAY_CLASSES = {("numpy", name) for name in ("ndarray", "matrix", "memmap")} | {
    ("numpy.matrixlib.defmatrix", "matrix"),
    ("numpy.core.memmap", "memmap"),
    ("numpy._core.memmap", "memmap"),
}
_CONTAINERS: dict[str, Any] = {
    "set": set,
    "frozenset": frozenset,
    "complex": complex,
    "bytes": _bytes,
    "bytearray": _bytearray,
    **{name: name for name in ("dict", "list", "int", "float")},  # arguments of defaultdict, never called
}
