import gzip
import lzma
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from steersman.errors import UserError
from steersman.sources import read
from steersman.sources.pictures import Pictures, label_of

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 256, (4, 28, 28)).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def shown(record) -> np.ndarray:
    return np.asarray(record["picture"].values)[0]


@pytest.mark.parametrize(("ending", "packed"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_mnists_files_are_read_however_they_are_packed(tmp_path, ending, packed):
    labels = np.array([3, 1, 4, 1], np.uint8)
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte{ending}").write_bytes(packed(idx(DIGITS)))
        (tmp_path / f"{part}-labels-idx1-ubyte{ending}").write_bytes(packed(idx(labels)))
    records = Pictures().open([str(tmp_path)])
    assert [label_of(r) for r in records] == ["3", "1", "4", "1"] * 2
    assert [r.about["part"] for r in records] == ["test"] * 4 + ["train"] * 4
    np.testing.assert_array_equal(np.stack([shown(r) for r in records[:4]]), DIGITS)


def test_arrays_of_numpy_are_read_part_by_part(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=DIGITS, y_train=np.arange(4), x_test=DIGITS[:1], y_test=np.array([7]))
    records = Pictures().open([str(tmp_path / "mnist.npz")])
    assert [(label_of(r), r.about["part"]) for r in records] == [*((f"{i}", "train") for i in range(4)), ("7", "test")]


def test_a_folder_of_pictures_a_class_is_read_whatever_its_pictures_are(tmp_path):
    (tmp_path / "ring").mkdir()
    (tmp_path / "dot").mkdir()
    base = np.zeros((20, 40), np.uint8)
    base[:, :10] = 200
    plain = Image.fromarray(base)
    plain.save(tmp_path / "ring" / "a.png")
    plain.convert("RGB").save(tmp_path / "ring" / "b.png")
    plain.convert("RGBA").save(tmp_path / "ring" / "c.webp", lossless=True)
    plain.save(tmp_path / "dot" / "d.gif", save_all=True, append_images=[Image.fromarray(255 - base)])
    Image.fromarray(base.astype(np.uint16) * 256).save(tmp_path / "dot" / "e.png")
    turned, exif = Image.fromarray(np.rot90(base).copy()), Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise.
    turned.save(tmp_path / "dot" / "f.tiff", exif=exif)
    (tmp_path / "dot" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "dot" / "huge.ppm").write_bytes(b"P6 60000 60000 255\n")
    records = Pictures(height=10, width=20).open([str(tmp_path)])
    assert [label_of(r) for r in records] == ["dot"] * 3 + ["ring"] * 3
    for record in records:
        expected = np.zeros((10, 20), np.uint8)
        expected[:, :5] = 200
        np.testing.assert_allclose(shown(record).astype(int), expected, atol=2, err_msg=record.name)
    assert records[0].about["num_faults"] == 2
    assert "broken.png can't be decoded" in records[0].about["faults"][0]
    # One that is high stands in the middle.
    high = shown(Pictures(height=10, width=10).open([str(tmp_path / "ring" / "a.png")])[0])
    assert high[2:7, :2].min() == 200
    assert not high[8:].any()


def test_pictures_are_put_somewhere_among_pieces_of_others_the_same_every_time(tmp_path):
    digits = np.zeros_like(DIGITS)
    digits[:, 8:20, 8:20] = 255
    np.savez(tmp_path / "d.npz", x=digits, y=np.arange(4))
    source = Pictures(canvas=60, clutter=3)
    records, again = source.open([str(tmp_path)]), source.open([str(tmp_path)])
    for record, other in zip(records, again, strict=True):
        picture = shown(record)
        assert picture.shape == (60, 60)
        np.testing.assert_array_equal(picture, shown(other))
        assert 144 < (picture > 0).sum() <= 144 + 3 * 64
    alone = shown(Pictures(canvas=60).open([str(tmp_path)])[0])
    assert (alone > 0).sum() == 144
    with pytest.raises(UserError, match="no room"):
        Pictures(canvas=20)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x-images-idx3-ubyte", idx(DIGITS)[:-1], "says 4x28x28 bytes and holds 3135"),
        ("x-images-idx3-ubyte", b"\0\0\x0d\3" + idx(DIGITS)[4:], "no file of bytes in IDX with 3 axes"),
        ("x-images-idx3-ubyte.xz", b"\xfd7zXZ\0nothing", "can't be unpacked"),
        ("x-images-idx3-ubyte.gz", idx(DIGITS), "can't be unpacked"),
        ("x-images-idx3-ubyte", idx(DIGITS), "lacks its labels"),
        ("x.npz", b"PK\3\4nothing", r"can't be read as \.npz"),
        ("x.txt", b"hello", "holds no picture"),
        ("x.png", b"hello", "no picture of .* can be read"),
    ],
)
def test_what_can_not_be_read_is_said_in_a_sentence(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as refused:
        Pictures().open([str(tmp_path)])
    assert "\n" not in str(refused.value)


def test_an_archive_that_says_it_is_encrypted_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=DIGITS, y=np.arange(4))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.find(mark)
        while place >= 0:
            data[place + flags] |= 1
            place = data.find(mark, place + 4)
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"can't be read as \.npz .*encrypted"):
        Pictures().open([str(tmp_path)])
    with pytest.raises(UserError):
        read(str(tmp_path / "x.npz"))


def test_a_member_that_is_no_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x", b"no array")
        archive.writestr("y", b"nor this")
    with pytest.raises(UserError, match="expected grey pictures"):
        Pictures().open([str(tmp_path)])


def test_arrays_of_another_kind_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=DIGITS.astype(float), y=np.arange(4))
    with pytest.raises(UserError, match="expected grey pictures"):
        Pictures().open([str(tmp_path)])
    np.savez(tmp_path / "x.npz", a=DIGITS)
    with pytest.raises(UserError, match="has no x_train with y_train"):
        Pictures().open([str(tmp_path)])
    labels = np.zeros(3, np.uint8)
    (tmp_path / "x.npz").unlink()
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(DIGITS))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(UserError, match="holds 4 pictures, labels-idx1-ubyte 3 labels"):
        Pictures().open([str(tmp_path)])
