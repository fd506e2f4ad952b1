"""Damaged files of a run, of prepared data and of labels are refused by name, with what to do."""

import dataclasses
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from davae.data.arrays import sha256
from davae.data.manifest import FILE_NAME, read_manifest
from davae.data.prepared import PreparedSplit
from davae.photo.packed import CHECKSUM, locate_checksum, read_packed
from davae.photo.predict import WEIGHTS
from davae.photo.release import write_packed
from davae.training import runs
from synthhand.formats.npz import open_npz
from synthhand.formats.pictures import BadSample, read_picture
from synthhand.formats.stb_labels import load_labels, write_labels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"data": 1, "sources": {}}', "a digest is not a text"),
        ('{"data": "a", "sources": {}, "colour": "b"}', "colour"),
        ("[1, 2]", "argument after"),
        ('{"data": ', "Expecting value"),
    ],
)
def test_a_damaged_identity_is_named(tmp_path, text, words):
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(ValueError, match=rf"identity\.json: damaged \(.*{words}.*; restore it, or train"):
        runs.identity_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x80\2N."])
def test_a_damaged_resume_point_is_named(tmp_path, content):
    runs.save_resume_point(tmp_path, {"step": 1})
    assert runs.load_resume_point(tmp_path) == {"step": 1}
    (tmp_path / "resume.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s)resume\.pt: .*damaged, delete it to train this run"):
        runs.load_resume_point(tmp_path)


def test_a_resume_point_with_a_changed_number_is_named(tmp_path):
    """PyTorch reads such a file without a word."""
    runs.save_resume_point(tmp_path, {"step": 1, "weights": torch.arange(1000)})
    path = tmp_path / "resume.pt"
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<q", 500))] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["weights"][500] != 500
    with pytest.raises(ValueError, match=r"resume\.pt: cannot be loaded \(wrong checksum of .*data/0\)"):
        runs.load_resume_point(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"\x93NUMPY", b"\x93NUMPX"),
        lambda content: content[:-400] + bytes(100) + content[-300:],
        lambda content: content[content.index(b"\x93NUMPY") :],
        lambda content: b"",
    ],
    ids=["cut", "head", "numbers", "one array alone", "empty"],
)
def test_a_damaged_file_of_arrays_is_named(tmp_path, damage):
    path = tmp_path / "factors.npz"
    np.savez(path, light=np.arange(100.0))
    with open_npz(path, "make it again") as file:
        assert np.array_equal(file["light"], np.arange(100.0))
    path.write_bytes(damage(path.read_bytes()))
    with (
        pytest.raises(ValueError, match=r"factors\.npz: damaged \(.*\); make it again"),
        open_npz(path, "make it again") as file,
    ):
        file["light"]


def test_a_resume_point_that_would_run_code_is_refused_without_torchs_advice(tmp_path):
    """PyTorch's own message says how to load the file without the guard."""
    runs.save_resume_point(tmp_path, {"step": 1, "more": tmp_path})
    with pytest.raises(ValueError, match="nothing in it was run") as caught:
        runs.load_resume_point(tmp_path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: [], "expected an object"),
        (lambda manifest: manifest | {"splits": []}, "TypeError"),
        (lambda manifest: manifest | {"splits": {}}, "KeyError: 'val'"),
    ],
)
def test_a_manifest_of_another_structure_is_named(prepared, tmp_path, change, words):
    (tmp_path / FILE_NAME).write_text(json.dumps(change(read_manifest(prepared))))
    with pytest.raises(ValueError, match=rf"{FILE_NAME}: damaged \(.*{words}.*; "):
        PreparedSplit.open(tmp_path, "val")


def test_an_array_that_the_manifest_forgets_is_named(prepared, tmp_path):
    shutil.copytree(prepared / "val", tmp_path / "val")
    manifest = read_manifest(prepared)
    del manifest["splits"]["val"]["arrays"]["joints"]
    (tmp_path / FILE_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"lacks or adds \['joints'\]"):
        PreparedSplit.open(tmp_path, "val")


@pytest.mark.parametrize("head", [b"\x93NUMPY\1\0\6\0{'a\n  ", b"PK\3\4", b""])
def test_the_head_of_a_damaged_array_is_named(prepared, tmp_path, head):
    shutil.copytree(prepared, tmp_path / "data")
    (tmp_path / "data" / "val" / "joints.npy").write_bytes(head)
    with pytest.raises(ValueError, match=r"joints\.npy: damaged \(.*run `python -m davae prepare` again"):
        PreparedSplit.open(tmp_path / "data", "val")


@pytest.mark.parametrize("about", ["[1]", "{", '"text"'])
def test_packed_weights_with_damaged_descriptions_are_named(tmp_path, about):
    with safe_open(WEIGHTS, "np") as file:
        metadata = file.metadata()
    save_file(load_file(WEIGHTS), tmp_path / "w.safetensors", metadata | {"about": about})
    with pytest.raises(ValueError, match=r"w\.safetensors: damaged \(.*; get it again"):
        read_packed(tmp_path / "w.safetensors")


def change_a_number(source: Path, out: Path) -> Path:
    """Copy a file of weights with one bit of one weight changed, which nothing but a checksum can tell."""
    content = bytearray(source.read_bytes())
    content[-1000] ^= 1
    out.write_bytes(content)
    return out


def test_the_shipped_weights_are_those_of_their_checksum(tmp_path):
    """In the form of `sha256sum`, which can check it, too."""
    stated, name = locate_checksum(WEIGHTS).read_text().split()
    assert (stated, name) == (sha256(WEIGHTS), WEIGHTS.name)
    with pytest.raises(ValueError, match=rf"{WEIGHTS.name}: has changed .*; get"):
        read_packed(change_a_number(WEIGHTS, tmp_path / WEIGHTS.name))


def test_a_checksum_beside_weights_is_enough(tmp_path):
    """Files that were packed before they carried a checksum inside may have one beside them."""
    with safe_open(WEIGHTS, "np") as file:
        metadata = {name: text for name, text in file.metadata().items() if name != CHECKSUM}
    older = tmp_path / "older.safetensors"
    save_file(load_file(WEIGHTS), older, metadata)
    stated = sha256(older)
    read_packed(change_a_number(older, older))  # alone, nothing tells
    locate_checksum(older).write_text(f"{stated}  {older.name}\n")
    with pytest.raises(
        ValueError, match=rf"older\.safetensors: has changed .* its checksum is \w+, .*{stated[:12]}; get"
    ):
        read_packed(older)
    read_packed(change_a_number(older, older))  # the same bit again


@pytest.mark.parametrize("text", ["", "none\n", "\u00e9"])
def test_a_damaged_checksum_fits_no_file(tmp_path, text):
    shutil.copy(WEIGHTS, tmp_path)
    locate_checksum(tmp_path / WEIGHTS.name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"has changed since it was written"):
        read_packed(tmp_path / WEIGHTS.name)


def test_weights_of_pack_carry_their_checksum(tmp_path):
    own = dataclasses.replace(read_packed(WEIGHTS), path=tmp_path / "own.safetensors")
    locate_checksum(own.path).write_text("of an older file\n")
    write_packed(own)
    assert read_packed(own.path).about == own.about  # the checksum beside it was renewed
    locate_checksum(own.path).unlink()
    read_packed(own.path)
    with safe_open(own.path, "np") as file:
        metadata = file.metadata()
    with pytest.raises(ValueError, match=r"changed\.safetensors: has changed .*its metadata state"):
        read_packed(change_a_number(own.path, tmp_path / "changed.safetensors"))
    about = json.dumps(json.loads(metadata["about"]) | {"data": "other"})
    save_file(load_file(own.path), tmp_path / "about.safetensors", metadata | {"about": about})
    with pytest.raises(ValueError, match=r"about\.safetensors: has changed"):
        read_packed(tmp_path / "about.safetensors")


def test_a_picture_that_claims_a_huge_size_is_a_bad_sample(tmp_path):
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(BadSample, match=r"1\.png"):
        read_picture(tmp_path / "1.png", "RGB", "copy it again")


def test_labels_whose_elements_are_cut_off_are_named(tmp_path):
    joints = np.arange(21 * 3 * 4, dtype=float).reshape(4, 21, 3)
    path = tmp_path / "labels.mat"
    write_labels(path, joints)
    assert load_labels(path).shape == (4, 21, 3)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"labels\.mat: damaged label file \(an element is of kind 15"):
        load_labels(path)


def test_compressed_labels_are_read_and_damaged_ones_named(tmp_path):
    """SciPy reads them; the check looks inside."""
    path = tmp_path / "labels.mat"
    scipy.io.savemat(path, {"handPara": np.zeros((3, 21, 5))}, do_compression=True)
    assert load_labels(path).shape == (5, 21, 3)
    data = bytearray(path.read_bytes())
    data[150] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"labels\.mat: damaged label file"):
        load_labels(path)
