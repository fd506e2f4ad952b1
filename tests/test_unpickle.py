"""synthhand.formats.unpickle reads all arrays that NumPy writes, and hand models' scipy.sparse."""

import collections
import pickle
import pickletools
import re

import numpy as np
import pytest
from scipy import sparse

from synthhand.formats.unpickle import StandIn, UnsafePickle, load_pickle, to_array

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
READERS = {"annotations": (), "hand model": ("chumpy", "scipy")}  # the stand-ins of each
CODES = sorted(set(np.typecodes["All"]) - {"O"})


def read(path, content, protocol, reader="annotations"):
    path.write_bytes(pickle.dumps(content, protocol))
    return load_pickle(path, "file", "anyone", READERS[reader])


def arrays(code: str) -> list[np.ndarray]:
    """Arrays of a type, in each byte order it has and in every layout."""
    suffix = {"S": "5", "U": "5", "V": "5", "M": "8[3ms]", "m": "8[h]"}.get(code, "")
    found = []
    for order in "<>":
        kind = np.dtype(f"{order}{code}{suffix}")
        values = np.arange(120) % 2 if code == "?" else np.arange(120)
        values = values.view("V8").astype(kind) if code == "V" else values.astype(kind)
        block = values.reshape(2, 3, 4, 5)
        found += [block, np.asfortranarray(block), block[0, 1], block[..., ::2, ::-1], block.swapaxes(1, 3)]
        found += [np.moveaxis(block, 0, 2)[:, 1:], block[1, 2, 3, 4:].reshape(()), block[:0], block[:, :, :0]]
        found += [np.broadcast_to(block[0, 0], (2, 4, 5)), block[:1, :1].squeeze()]
    return found


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_every_type_order_and_layout_are_read(tmp_path, protocol, reader):
    for code in CODES:
        written = arrays(code)
        for before, after in zip(
            written, read(tmp_path / "a.pickle", written, protocol, reader), strict=True
        ):
            assert after.dtype.newbyteorder("=") == before.dtype.newbyteorder("=")  # NumPy may swap bytes
            assert after.shape == before.shape
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_other_array_classes_and_plain_containers_are_read(tmp_path, protocol, reader):
    content = {
        "scalars": [np.ones(1, code)[0] for code in CODES if code not in "MmV"],
        "more": [
            np.datetime64("NaT"),
            np.datetime64(3, "D"),
            np.timedelta64(7, "ms"),
            np.str_(""),
            np.bytes_(b""),
            np.void(b"abc"),
        ],
        "texts": ["", "é", b"", b"\xff\0", bytearray(b"ab"), bytearray()],
        "plain": [None, True, 10**40, -1.5, 2 + 3j, (), (1,), {1, 2}, frozenset("ab")],
        "dicts": [collections.OrderedDict(b=1, a=2), collections.defaultdict(list, a=[1])],
    }
    found = read(tmp_path / "a.pickle", content, protocol, reader)
    never = found["more"][0]
    assert np.isnat(never) and never.dtype == content["more"].pop(0).dtype
    del found["more"][0]
    assert found == content
    for before, after in zip(
        content["scalars"] + content["more"], found["scalars"] + found["more"], strict=True
    ):
        assert after.dtype == before.dtype
    mapped = np.memmap(tmp_path / "numbers", "f4", "w+", shape=(2, 3))
    mapped[:] = np.arange(6).reshape(2, 3)
    with pytest.warns(PendingDeprecationWarning):  # what NumPy says of its matrix
        written = [mapped, np.matrix([[1.0, 2.0]])]
    for before, after in zip(written, read(tmp_path / "a.pickle", written, protocol, reader), strict=True):
        np.testing.assert_array_equal(after, np.asarray(before))


def as_numpy_1_wrote(data: bytes) -> bytes:
    """The same pickle with NumPy 1's module names, and without the frames whose lengths would be others."""
    frames = [at for opcode, _, at in pickletools.genops(data) if opcode.name == "FRAME"]
    for at in reversed(frames):
        data = data[:at] + data[at + 9 :]
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        shorter = module.replace(b"_core", b"core")
        data = data.replace(b"\x8c%c%s" % (len(module), module), b"\x8c%c%s" % (len(shorter), shorter))
        data = data.replace(b"c" + module, b"c" + shorter)
    return data


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_module_names_of_numpy_1_are_read(tmp_path, protocol):
    path, written = tmp_path / "a.pickle", [np.eye(3), np.float64(2.5), np.ones((2, 3, 4)).T, np.zeros(0)]
    path.write_bytes(as_numpy_1_wrote(pickle.dumps(written, protocol)))
    assert b"numpy.core" in path.read_bytes() and b"numpy._core" not in path.read_bytes()
    for before, after in zip(written, load_pickle(path, "file", "anyone"), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(2, [("x", "f4"), ("id", "i4")]), "array of records with fields x, id"),
        (np.zeros(2, [("x", "f4", (2,))]), "array of records"),
        (np.zeros(2, [("x", "f4")])[0], "array of records"),
        (np.zeros(2, [("x", "f4")]).view(np.recarray), "recarray"),
        (np.array([None, {}], object), "array of Python objects"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), r"numpy\.ma\.core\._mareconstruct"),
        (np.array(["a"], np.dtypes.StringDType()), "stringdtype"),
        (range(3), r"builtin.*range"),
    ],
    ids=["records", "rows", "record", "recarray", "objects", "masked", "strings", "range"],
)
def test_what_is_not_numbers_is_refused_by_name(tmp_path, protocol, reader, value, message):
    with pytest.raises(UnsafePickle, match=rf"a\.pickle: .*(?i:{message}).*nothing in it was run"):
        read(tmp_path / "a.pickle", {0: {"xyz": value}}, protocol, reader)


def test_text_of_python_2_need_not_be_ascii(tmp_path):
    path = tmp_path / "a.pickle"
    path.write_bytes(b"(S'\x9a\xe9'\np0\nI7\nl.")  # protocol 0
    assert load_pickle(path, "file", "anyone") == ["\x9a\xe9", 7]


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\nbytes\n(I1000000000000\ntR.",
        b"cbuiltins\nbytearray\n(I1000000000000\ntR.",
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"ccollections\ndefaultdict\n(cbuiltins\neval\ntR.",
        b"}p1000000000\n.",
    ],
)
def test_plain_containers_let_nothing_else_in(tmp_path, program):
    path = tmp_path / "a.pickle"
    path.write_bytes(program)
    with pytest.raises(ValueError, match=r"a\.pickle: "):  # and memory is not filled
        load_pickle(path, "file", "anyone")


def of_chumpy(name: str, **state) -> StandIn:
    """What the unpickler makes of an object of chumpy 0.70, whose states these are."""
    thing = type("StandIn", (StandIn,), {"origin": f"chumpy.{name}"})()
    thing.state = {"_dirty_vars": set(), "_itr": None, "_depends_on_deps": {}} | state
    return thing


def test_arrays_that_chumpy_laid_out_anew_are_read_and_its_sums_are_not():
    values = np.arange(12.0).reshape(3, 4)
    plain = of_chumpy("ch.Ch", x=values)
    np.testing.assert_array_equal(to_array(plain), values)
    np.testing.assert_array_equal(to_array(of_chumpy("reordering.transpose", a=plain)), values.T)
    turned = of_chumpy("reordering.transpose", a=plain, axes=(1, 0))
    reshaped = of_chumpy("reordering.Reshape", a=turned, newshape=(2, 6))
    np.testing.assert_array_equal(to_array(reshaped), values.T.reshape(2, 6))
    few = of_chumpy("reordering.Select", a=plain, idxs=np.array([1, 5]), preferred_shape=(2,))
    np.testing.assert_array_equal(to_array(few), [1, 5])
    with pytest.raises(ValueError, match=r"holds chumpy\.ch_ops\.add where an array is expected"):
        to_array(of_chumpy("reordering.transpose", a=of_chumpy("ch_ops.add", a=plain, b=plain)))


FORMS = ("csc", "csr", "bsr", "coo", "dia")
MATRIX = np.zeros((4, 6))
MATRIX[[0, 1, 2, 2, 3], [1, 0, 2, 5, 5]] = [1, -2, 3, 4, 5]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("form", FORMS)
def test_sparse_matrices_are_written_out_whatever_their_form_and_age(tmp_path, form, kind, protocol):
    path = tmp_path / "a.pkl"
    written = getattr(sparse, f"{form}_{kind}")(MATRIX)
    found = read(path, written, protocol, "hand model")
    assert isinstance(found, StandIn) and found.origin == f"scipy.sparse._{form}.{form}_{kind}"
    np.testing.assert_array_equal(to_array(found), MATRIX)
    if protocol < 4:  # SciPy before 1.8: modules without the underscore
        data = pickle.dumps(written, protocol)
        path.write_bytes(data.replace(f"sparse._{form}".encode(), f"sparse.{form}".encode()))
        found = load_pickle(path, "file", "anyone", READERS["hand model"])
        assert found.origin == f"scipy.sparse.{form}.{form}_{kind}"
        if form == "coo":  # and rows and columns under names of their own
            found.state["row"], found.state["col"] = found.state.pop("coords")
        np.testing.assert_array_equal(to_array(found), MATRIX)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_shape": (10**6, 10**6)}, "100,000,000 numbers at most"),
        ({"_shape": (-4, 6)}, r"of shape \(-4, 6\)"),
        ({"_shape": None}, "of shape None"),
        ({"indices": np.array([1, 0, 2, 5, 600])}, "."),
    ],
)
def test_a_sparse_matrix_is_checked_before_it_is_written_out(tmp_path, change, message):
    found = read(tmp_path / "a.pkl", sparse.csr_matrix(MATRIX), 2, "hand model")
    found.state.update(change)
    with pytest.raises(ValueError, match=message):
        to_array(found)


@pytest.mark.parametrize("form", ["lil", "dok"])
def test_sparse_matrices_of_python_objects_are_refused_by_name(tmp_path, form):
    with pytest.raises(ValueError, match=r"a\.pkl: .*(Python objects|of scipy\.sparse\._dok\.dok_array)"):
        to_array(read(tmp_path / "a.pkl", getattr(sparse, f"{form}_array")(MATRIX), 2, "hand model"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<!DOCTYPE html><title>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer; `git lfs pull`"),
        (b"PK\3\4" + bytes(60), "a ZIP archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"", "empty"),
        (bytes(100), "zeros"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, found):
    path = tmp_path / "a.pickle"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.pickle: is {re.escape(found)}.*; expected a pickle, the file"):
        load_pickle(path, "file", "anyone")


def test_no_pickle_changes_what_a_later_one_yields(tmp_path):
    """A pickle may set attributes of what it is given, such as a function's defaults."""
    values = np.arange(6.0).reshape(2, 3)
    state = pickle.dumps((None, {"__defaults__": ((1, 0),)}), 2).removeprefix(b"\x80\x02").removesuffix(b".")
    path = tmp_path / "first.pickle"
    path.write_bytes(b"\x80\x02cnumpy.core.numeric\n_frombuffer\n" + state + b"b.")
    load_pickle(path, "labels", "here")
    np.testing.assert_array_equal(read(tmp_path / "second.pickle", values, 5), values)


@pytest.mark.parametrize("spec", ["i4,i4", "(10,)i4"])
def test_types_of_records_are_refused_also_without_a_state(tmp_path, spec):
    path = tmp_path / "x.pickle"
    path.write_bytes(b"cnumpy\ndtype\n(V" + spec.encode() + b"\ntR.")
    with pytest.raises(UnsafePickle, match="records; expected numbers"):
        load_pickle(path, "labels", "here")
