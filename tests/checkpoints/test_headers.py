"""Headers of safetensors files: what is in them, and that nothing in them is trusted."""

from __future__ import annotations

import json

import pytest

from msdsim.checkpoints.headers import read_header, read_index, read_tensors
from msdsim.errors import InputError


def write(path, header, data=b"", text=None):
    body = (json.dumps(header) if text is None else text).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + data)
    return path


def entry(dtype="BF16", shape=(2, 3), offsets=(0, 12)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_file(tmp_path):
    file = write(tmp_path / "a.safetensors", {"w": entry(), "s": entry("F32", (), (12, 16)), "__metadata__": {"format": "pt"}}, b"x" * 16)
    header = read_header(file)
    assert {name: (t.dtype, t.shape, t.end - t.begin) for name, t in header.tensors.items()} == {
        "w": ("BF16", (2, 3), 12), "s": ("F32", (), 4)}
    assert header.tensors["s"].end == file.stat().st_size
    assert header.metadata == {"format": "pt"}


@pytest.mark.parametrize(("header", "message"), [
    ({"w": entry(offsets=(-4, 8))}, "data_offsets that are no two whole numbers"),
    ({"w": entry(offsets=("0", "12"))}, "data_offsets that are no two whole numbers"),
    ({"w": entry(offsets=(0, 12, 24))}, "data_offsets that are no two whole numbers"),
    ({"w": entry(offsets=(0, True))}, "data_offsets that are no two whole numbers"),
    ({"w": entry(dtype=["BF16"])}, "has no dtype"),
    ({"w": entry(dtype="B16")}, "has dtype 'B16', which is none of"),
    ({"w": entry(shape=(1e30, 3))}, "shape that is no list of whole numbers"),
    ({"w": entry(shape=(10**30, 3))}, "shape that is no list of whole numbers"),
    ({"w": entry(shape=(-2, -3))}, "shape that is no list of whole numbers"),
    ({"w": entry(shape=(2**62, 2**62, 2**62))}, "has 12 bytes of data for a huge number"),
    ({"w": entry(shape=(2, 4))}, "has 12 bytes of data for 16 of a BF16 tensor"),
    ({"w": entry(offsets=(12, 0))}, "has -12 bytes of data for 12"),
    ({"w": 3}, "is no table"),
    ({"w": entry(), "v": entry(offsets=(6, 18))}, "the data of 'w' and 'v' overlap"),
    ({"w": entry(offsets=(100, 112))}, "it is cut off"),
    ({"__metadata__": {"a": 1}}, "its __metadata__ is no table of texts"),
    ([1, 2], "its header is not a JSON object"),
    ({"w" * 100_000: entry(dtype="B16")}, "has dtype 'B16'"),
])
def test_malformed_headers(header, message, tmp_path):
    with pytest.raises(InputError) as found:
        read_header(write(tmp_path / "a.safetensors", header, b"x" * 18))
    assert message in str(found.value)
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize(("raw", "message"), [
    (b"", "its header would have 0 bytes"),
    (b"\xff" * 8, "its header would have 18446744073709551615 bytes"),
    ((20).to_bytes(8, "little") + b"{}", "its header would have 20 bytes"),
    ((2).to_bytes(8, "little") + b"{]", "its header is not JSON"),
    ((4).to_bytes(8, "little") + b"\xff\xfe\x00\x01", "its header is not JSON"),
    ((200_000).to_bytes(8, "little") + b"[" * 200_000, "its header is not JSON"),
    ((40_000).to_bytes(8, "little") + b'{"a":' * 8_000, "its header is not JSON"),
])
def test_files_that_are_none(raw, message, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(InputError) as found:
        read_header(tmp_path / "a.safetensors")
    assert message in str(found.value)


def test_a_name_twice(tmp_path):
    one = json.dumps(entry())
    with pytest.raises(InputError, match="names 'w' twice"):
        read_header(write(tmp_path / "a.safetensors", {}, b"x" * 12, f'{{"w": {one}, "w": {one}}}'))


def test_shapes_without_data(tmp_path):
    file = write(tmp_path / "a.safetensors", {"w": entry("BF16", (1000, 1000), (0, 2_000_000))})
    assert read_header(file, need_data=False).tensors["w"].shape == (1000, 1000)


def test_a_checkpoint_of_several_files(tmp_path):
    write(tmp_path / "m-1.safetensors", {"a": entry()}, b"x" * 12)
    write(tmp_path / "m-2.safetensors", {"b": entry()}, b"x" * 12)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    assert list(read_tensors(tmp_path)) == list(read_tensors(index)) == ["a", "b"]
    for weight_map, message in (
        ({"a": "m-1.safetensors", "b": "m-3.safetensors"}, "1 of them are not in its folder, such as 'm-3.safetensors'"),
        ({"a": "m-2.safetensors", "b": "m-2.safetensors"}, "puts tensor 'a' into 'm-2.safetensors', but it is in none of the files"),
        ({"a": "../m-1.safetensors"}, "is no file of the same folder"),
        ({"a": 3}, "is no file of the same folder"),
        ({}, "has no table weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(InputError) as found:
            read_tensors(index)
        assert message in str(found.value)
    index.write_text("[" * 100_000)
    with pytest.raises(InputError, match="it is not JSON"):
        read_index(index)
    index.unlink()
    write(tmp_path / "m-2.safetensors", {"a": entry()}, b"x" * 12)
    with pytest.raises(InputError, match="tensor 'a' is in both"):
        read_tensors(tmp_path)
