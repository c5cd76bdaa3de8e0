"""What the data notebook cannot show about itself: bad sources, published archives, pure splits."""

import gzip
import hashlib
import io
import os
import pickle
import socket
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from aae_prior import data as D
from aae_prior.published import data_root
from aae_prior.sources import stratified_order


def arrays(n=30, classes=3, shape=(8, 8, 3), **other):
    "Arrays that are as they should be, with those of `other` in their place (None: left out)."
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        "y_train": np.arange(n) % classes,
        "x_test": rng.integers(0, 256, (6, *shape), dtype=np.uint8),
        "y_test": np.arange(6) % classes,
    }
    return {key: value for key, value in (good | other).items() if value is not None}


def npz(path, compressed=False, **other):
    (np.savez_compressed if compressed else np.savez)(path, **arrays(**other))
    return path


def picture(path, size=(12, 12), mode="RGB", **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    ).convert(mode).save(path, **kw)
    return path


def picture_folder(folder, classes=("ant", "bee"), each=6, **kw):
    for name in classes:
        for i in range(each):
            picture(folder / name / f"{i}.png", **kw)
    return folder


# -- bad sources ---------------------------------------------------------------------------------------------------

X = arrays()["x_train"]
Y = arrays()["y_train"]
objects = np.array([{"a": 1}] * 30, dtype=object)

BAD_ARRAYS = {  # the arrays that are wrong, and a word that the refusal has to say
    "float images in [0, 1]": (dict(x_train=X / 255), "x_train"),
    "float images out of range": (dict(x_train=X * 3.0), "x_train"),
    "float32 images with NaN": (dict(x_train=np.full(X.shape, np.nan, np.float32)), "NaN"),
    "images with infinity": (dict(x_train=np.where(X > 9, np.inf, 0.0)), "infinite"),
    "float16 test images": (dict(x_test=X[:6].astype(np.float16)), "x_test"),
    "int64 images": (dict(x_train=X.astype(np.int64)), "int64"),
    "int8 images": (dict(x_train=X.astype(np.int8)), "int8"),
    "bool images": (dict(x_train=X > 9), "bool"),
    "complex images": (dict(x_train=X * 1j), "complex128"),
    "string images": (dict(x_train=np.array(["a"] * 30)), "x_train"),
    "flat images": (dict(x_train=X.reshape(30, -1)), "(30, 192)"),
    "five axes": (dict(x_train=X[:, None]), "(30, 1, 8, 8, 3)"),
    "no axes": (dict(x_train=np.uint8(3)), "x_train"),
    "four channels": (dict(x_train=np.concatenate([X, X[..., :1]], 3)), "(30, 8, 8, 4)"),
    "two channels": (dict(x_train=X[..., :2]), "(30, 8, 8, 2)"),
    "images 2 pixels high": (dict(x_train=X[:, :2]), "(30, 2, 8, 3)"),
    "strips of 3 pixels": (dict(x_train=X[:, :3]), "(30, 3, 8, 3)"),
    "images 0 pixels wide": (dict(x_train=X[:, :, :0]), "(30, 8, 0, 3)"),
    "no training images": (dict(x_train=X[:0], y_train=Y[:0]), "no images"),
    "no test images in x_test": (dict(x_test=X[:0], y_test=Y[:0]), "x_test"),
    "fewer labels than images": (dict(y_train=Y[:-1]), "29 labels"),
    "more test labels than images": (dict(y_test=Y[:7]), "y_test"),
    "float labels": (dict(y_train=Y.astype(float)), "y_train"),
    "labels with NaN": (dict(y_train=np.full(30, np.nan)), "y_train"),
    "bool labels": (dict(y_train=Y > 0), "bool"),
    "texts and numbers as labels": (dict(y_train=Y.astype(str)), "two kinds"),
    "labels of bytes": (dict(y_train=Y.astype(bytes), y_test=Y[:6].astype(bytes)), "|S"),
    "a text label never trained on": (dict(y_train=Y.astype(str), y_test=np.array(["0", "9"] * 3)), "9"),
    "a text label that is no class name": (
        dict(y_train=Y.astype(str), y_test=Y[:6].astype(str), class_names=np.array(["0", "1"])),
        "class_names: 2",
    ),
    "one-hot labels": (dict(y_train=np.eye(3, dtype=int)[Y]), "argmax"),
    "labels in a column": (dict(y_train=Y[:, None]), "ravel"),
    "a single label": (dict(y_train=np.int64(1)), "y_train"),
    "negative labels": (dict(y_train=Y - 1), "-1"),
    "labels from 1": (dict(y_train=Y + 1), "label 0"),
    "labels that skip a class": (dict(y_train=np.where(Y == 1, 3, Y)), "label 1"),
    "a huge label": (dict(y_train=np.where(np.arange(30) == 4, 10**9, Y)), "1000000000"),
    "an enormous unsigned label": (
        dict(y_train=np.where(np.arange(30) == 4, 2**64 - 1, Y.astype(np.uint64))),
        "y_train",
    ),
    "no y_train": (dict(y_train=None), "y_train"),
    "class names without labels": (dict(y_train=None, y_test=None, class_names=np.array(["a", "b"])), "y_train"),
    "black images": (dict(x_train=X * 0), "30 of the 30 images of x_train are of one colour"),
    "a white test image": (dict(x_test=np.concatenate([X[:5], X[:1] * 0 + 255])), "number 5"),
    "no x_train": (dict(x_train=None), "x_train"),
    "x_test without y_test": (dict(y_test=None), "y_test"),
    "y_test without x_test": (dict(x_test=None), "x_test"),
    "test images of another size": (dict(x_test=X[:6, :7]), "x_test"),
    "grey test images for RGB": (dict(x_test=X[:6, :, :, 0]), "x_test"),
    "test label never trained on": (dict(y_test=Y[:6] + 1), "y_test"),
    "too few class names": (dict(class_names=np.array(["a", "b"])), "2 classes"),
    "too many class names": (dict(class_names=np.array(["a", "b", "c", "d"])), "label 3"),
    "class names that are bytes": (dict(class_names=np.array([b"a", b"b", b"c"])), "class_names"),
    "class names in a matrix": (dict(class_names=np.array([["a", "b", "c"]])), "class_names"),
    "file names of other images": (dict(names=np.array(["a.jpg"] * 7)), "names"),
    "file names for no test images": (dict(x_test=None, y_test=None, names_test=np.array(["a.jpg"])), "names_test"),
    "a caveat that is a number": (dict(caveat=np.array(3.0)), "caveat"),
    "pickled images": (dict(x_train=objects), "x_train"),
    "pickled labels": (dict(y_train=objects), "y_train"),
    "pickled class names": (dict(class_names=objects[:3]), "class_names"),
    "no test arrays and one image a class": (
        dict(x_train=X[:3], y_train=Y[:3], x_test=None, y_test=None),
        "one image a class",
    ),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def footprint(folder):
    "Everything under a folder: type, permissions, time of the last change, bytes."
    state = {}
    for path in sorted(Path(folder).rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else os.readlink(path) if path.is_symlink() else None
        state[str(path)] = info.st_mode, info.st_mtime_ns, content
    return state


def assert_refused(folder, source, *words, **kw):
    "The source is refused on one line with these words, and nothing under the folder was touched."
    before = footprint(folder)
    with pytest.raises((ValueError, OSError)) as refused:
        D.load(source, **kw)
    line = str(refused.value)
    assert "\n" not in line and "\r" not in line and 20 < len(line) < 6000
    assert all(word in line for word in words), line
    assert refused.value.__context__ is None or refused.value.__suppress_context__, (
        "a second traceback would be printed"
    )
    assert footprint(folder) == before
    return line


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_are_refused(kind, tmp_path):
    wrong, word = BAD_ARRAYS[kind]
    line = assert_refused(tmp_path, npz(tmp_path / "mine.npz", **wrong), str(tmp_path / "mine.npz"), word)
    assert "allowed" in line


def member(array, **change):
    "An .npy member whose header says what is in `change`."
    stream = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | change
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


def archive(path, members):
    with zipfile.ZipFile(path, "w") as z:
        for name, content in members:
            z.writestr(name, content)
    return path


def parts(**replaced):
    good = {f"{key}.npy": member(value) for key, value in arrays().items()}
    return list((good | replaced).items())


def flipped(path, compressed):
    content = bytearray(npz(path, compressed=compressed).read_bytes())
    content[500] ^= 0x10
    path.write_bytes(content)
    return path


def encrypted(path):
    content = bytearray(npz(path).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says a password is needed
        start = 0
        while (start := content.find(signature, start)) >= 0:
            content[start + offset] |= 1
            start += 4
    path.write_bytes(content)
    return path


def renamed_in_directory(path):
    "Class names that the archive's directory calls something else, so that they would silently not be found."
    content = npz(path, class_names=np.array(["a", "b", "c"])).read_bytes()
    head, tail = content.rsplit(b"class_names.npy", 1)
    return written(path, head + b"clasz_names.npy" + tail)


class Trap:
    "Unpickling one makes the folder of its name."

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def npy(value):
    stream = io.BytesIO()
    np.save(stream, value)
    return stream.getvalue()


def linked(path, target):
    path.symlink_to(target)
    return path


def fifo(path):
    os.mkfifo(path)
    return path


def folder_of(path):
    path.mkdir()
    return path


def truncated_jpeg(folder):
    file = picture(folder / "ant" / "cut.jpg", size=(64, 64))
    file.write_bytes(file.read_bytes()[:700])


def spoilt(how):
    "A good folder of images, spoilt by `how(folder)`."

    def make(path):
        folder = picture_folder(path / "pictures")
        how(folder)
        return folder

    return make


def many_bad(folder):
    for i in range(70):
        written(folder / "bee" / f"bad{i:02}.png", b"not a picture")


BAD_FILES = {  # what makes the bad source in a folder, and words that the refusal has to say
    "nothing there": (lambda p: p / "absent.npz", ["absent.npz", "no such"]),
    "no such folder": (lambda p: p / "absent" / "pictures", ["absent", "no such"]),
    "zero bytes": (lambda p: written(p / "x.npz", b""), ["x.npz"]),
    "random bytes": (lambda p: written(p / "x.npz", np.random.default_rng(0).bytes(5000)), ["x.npz"]),
    "text": (lambda p: written(p / "x.npz", b"x_train,y_train\n1,2\n"), ["x.npz"]),
    "an .npy renamed": (lambda p: written(p / "x.npz", npy(X)), ["x.npz"]),
    "a pickle renamed": (lambda p: written(p / "x.npz", pickle.dumps(arrays())), ["x.npz"]),
    "a gzip renamed": (lambda p: written(p / "x.npz", gzip.compress(b"1" * 1000)), ["x.npz"]),
    "cut short": (lambda p: written(p / "x.npz", npz(p / "x.npz").read_bytes()[:3000]), ["x.npz"]),
    "cut by one byte": (lambda p: written(p / "x.npz", npz(p / "x.npz").read_bytes()[:-1]), ["x.npz"]),
    "head missing": (lambda p: written(p / "x.npz", npz(p / "x.npz").read_bytes()[700:]), ["x.npz"]),
    "a flipped bit": (lambda p: flipped(p / "x.npz", False), ["x.npz"]),
    "a flipped bit, compressed": (lambda p: flipped(p / "x.npz", True), ["x.npz"]),
    "a password": (lambda p: encrypted(p / "x.npz"), ["x.npz"]),
    "no arrays": (lambda p: archive(p / "x.npz", []), ["x.npz", "x_train"]),
    "path traversal": (lambda p: archive(p / "x.npz", parts() + [("../../evil.npy", b"1")]), ["x.npz", "evil.npy"]),
    "an absolute path": (lambda p: archive(p / "x.npz", parts() + [("/tmp/evil.npy", b"1")]), ["x.npz", "evil.npy"]),
    "a Windows path": (lambda p: archive(p / "x.npz", parts() + [("C:\\evil.npy", b"1")]), ["x.npz", "evil.npy"]),
    "a folder in the archive": (
        lambda p: archive(p / "x.npz", [("data/" + k, v) for k, v in parts()]),
        ["x.npz", "data/x_train.npy"],
    ),
    "a member that is no array": (lambda p: archive(p / "x.npz", parts(**{"x_train.npy": b"hello"})), ["x.npz"]),
    "a member that is a pickle": (lambda p: archive(p / "x.npz", parts(**{"x_train.npy": pickle.dumps(X)})), ["x.npz"]),
    "a trap in a pickle": (
        lambda p: npz(p / "x.npz", x_train=np.array([Trap(p / "sprung")] * 30, dtype=object)),
        ["x.npz", "x_train.npy"],
    ),
    "an array twice": (
        lambda p: archive(p / "x.npz", parts() + [("y_test.npy", member(Y[:6]))]),
        ["x.npz", "one name"],
    ),
    "a directory that disagrees": (lambda p: renamed_in_directory(p / "x.npz"), ["x.npz", "clasz_names.npy"]),
    "a program in the archive": (lambda p: archive(p / "x.npz", parts() + [("setup.py", b"1")]), ["x.npz", "setup.py"]),
    "a shape too small for its bytes": (
        lambda p: archive(p / "x.npz", parts(**{"x_train.npy": member(X, shape=(30, 8, 6, 3))})),
        ["x.npz", "bytes"],
    ),
    "a shape too large for its bytes": (
        lambda p: archive(p / "x.npz", parts(**{"x_train.npy": member(X, shape=(30, 9, 8, 3))})),
        ["x.npz"],
    ),
    "a shape of a petabyte": (
        lambda p: archive(p / "x.npz", parts(**{"x_train.npy": member(X, shape=(30, 10**7, 10**6, 3))})),
        ["x.npz"],
    ),
    "a negative shape": (
        lambda p: archive(p / "x.npz", parts(**{"x_train.npy": member(X, shape=(30, -8, -8, 3))})),
        ["x.npz"],
    ),
    "a type that is none": (
        lambda p: archive(p / "x.npz", parts(**{"x_train.npy": member(X, descr="|Z9")})),
        ["x.npz"],
    ),
    "an object type in the header": (
        lambda p: archive(p / "x.npz", parts(**{"x_train.npy": member(X, descr="|O")})),
        ["x.npz"],
    ),
    "a folder named x.npz": (lambda p: folder_of(p / "x.npz"), ["x.npz", "regular file"]),
    "a pipe": (lambda p: fifo(p / "x.npz"), ["x.npz", "regular file"]),
    "a link to nothing": (lambda p: linked(p / "x.npz", p / "absent"), ["x.npz"]),
    "a link to itself": (lambda p: linked(p / "x.npz", p / "x.npz"), ["x.npz"]),
    "an .npy file": (lambda p: written(p / "x.npy", npy(X)), ["x.npy", "allowed"]),
    "a text file": (lambda p: written(p / "x.csv", b"1,2,3"), ["x.csv", "allowed"]),
    "a zip of pictures": (lambda p: archive(p / "x.zip", [("ant/1.png", b"1")]), ["x.zip", "allowed"]),
    "an npz without its ending": (lambda p: npz(p / "x.npz").rename(p / "x"), ["allowed"]),
    "a file name of two lines": (lambda p: written(p / "x\ny.npz", b""), ["y.npz"]),
    "an empty folder": (lambda p: folder_of(p / "pictures"), ["pictures", "sub-folders"]),
    "a folder with one picture": (lambda p: picture(p / "pictures" / "1.png").parent, ["pictures", "more images"]),
    "an empty class": (spoilt(lambda f: (f / "cow").mkdir()), ["pictures", "cow"]),
    "a class of hidden files": (spoilt(lambda f: written(f / "cow" / ".keep", b"")), ["pictures", "cow"]),
    "pictures beside the classes": (spoilt(lambda f: picture(f / "stray.jpg")), ["pictures", "stray.jpg"]),
    "an empty picture": (spoilt(lambda f: written(f / "bee" / "none.png", b"")), ["bee/none.png"]),
    "a picture cut short": (spoilt(truncated_jpeg), ["ant/cut.jpg"]),
    "a damaged PNG": (
        spoilt(lambda f: written(f / "ant" / "9.png", (f / "ant" / "1.png").read_bytes().replace(b"IDAT", b"IDAX"))),
        ["ant/9.png"],
    ),
    "a float picture": (
        spoilt(lambda f: Image.fromarray(np.ones((9, 9), np.float32)).save(f / "ant" / "real.tif")),
        ["ant/real.tif (neither 8 nor 16 bits"],
    ),
    "a picture of 2 pixels": (spoilt(lambda f: picture(f / "ant" / "dot.png", size=(2, 9))), ["ant/dot.png (only 2x9"]),
    "a picture that is a link to nothing": (
        spoilt(lambda f: linked(f / "bee" / "gone.png", f / "absent.png")),
        ["bee/gone.png (No such"],
    ),
    "many bad pictures": (spoilt(many_bad), ["70 of 82 files", "bee/bad00.png", "bee/bad49.png", "and 20 more"]),
    "one picture a class": (lambda p: picture_folder(p / "pictures", each=1), ["pictures", "one image a class"]),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused(kind, tmp_path):
    make, words = BAD_FILES[kind]
    assert_refused(tmp_path, make(tmp_path), *words)


def test_all_unreadable_pictures_are_named(tmp_path):
    folder = picture_folder(tmp_path / "pictures")
    bad = [
        written(folder / name, content)
        for name, content in (
            ("ant/a.png", b""),
            ("ant/b.jpg", b"\xff\xd8\xff"),
            ("bee/c.gif", b"GIF89a"),
            ("bee/d.bmp", b"BM"),
        )
    ]
    assert_refused(tmp_path, folder, "4 of 16 files", *(f"{file.parent.name}/{file.name}" for file in bad))


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    path, real = npz(tmp_path / "secret.npz"), zipfile.ZipFile

    def denied(file, *args):
        if Path(file) == path:
            raise PermissionError(13, "Permission denied", str(file))  # for root, permissions do not hold
        return real(file, *args)

    monkeypatch.setattr(zipfile, "ZipFile", denied)
    assert_refused(tmp_path, path, "secret.npz", "Permission denied")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permissions_of_the_system_are_refused_in_one_line(tmp_path):
    path, folder = npz(tmp_path / "secret.npz"), picture_folder(tmp_path / "pictures")
    for locked in (path, folder / "ant" / "1.png"):
        locked.chmod(0)
    with pytest.raises(OSError, match="secret.npz.*Permission denied"):
        D.load(path)
    with pytest.raises(ValueError, match="ant/1.png .Permission denied"):
        D.load(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = npz(
        tmp_path_factory.mktemp("whole") / "mine.npz",
        class_names=np.array(["a", "b", "c"]),
        names=np.array([f"{i}.jpg" for i in range(30)]),
    )
    return path.read_bytes(), D.load(path, size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255), cut=st.booleans())
def test_any_damage_is_refused_or_harmless(whole, tmp_path, where, flip, cut):
    "A changed byte, or a missing end: the data are refused in one line, or are exactly those of the whole file."
    content, expected = bytearray(whole[0]), whole[1]
    at = int(where * len(content))
    if cut:
        content = content[:at]
    else:
        content[at] ^= flip
    path = written(tmp_path / "mine.npz", bytes(content))
    try:
        found = D.load(path, size=8)
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert found.fingerprint == expected.fingerprint
        assert (found.class_names, found.names_train) == (expected.class_names, expected.names_train)
    assert path.read_bytes() == content


# -- names and roots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, words",
    [
        ("imagenet", ["'imagenet'", *D.NAMES]),
        ("MNIST", ["did you mean 'mnist'"]),
        ("fashion-mnist", ["did you mean 'fashion_mnist'"]),
        ("cifar100", ["did you mean 'cifar10'"]),
        ("", ["''"]),
        (None, ["'None'"]),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(tmp_path, name, *words)


@pytest.mark.parametrize("size", [0, -32, 7, 513, 31.5, "32", None])
def test_bad_sizes_are_refused(size, tmp_path):
    assert_refused(tmp_path, "digits", "size", "8 to 512", size=size)


@pytest.mark.parametrize(
    "name, files",
    [
        ("mnist", ["MNIST/raw/train-images-idx3-ubyte.gz", "MNIST/raw/t10k-labels-idx1-ubyte.gz"]),
        ("fashion_mnist", ["FashionMNIST/raw/train-images-idx3-ubyte.gz"]),
        ("svhn", ["train_32x32.mat", "test_32x32.mat"]),
        ("cifar10", ["cifar-10-python.tar.gz"]),
        ("flowers102", ["flowers-102/102flowers.tgz", "flowers-102/setid.mat"]),
    ],
)
def test_nothing_found_and_no_network(name, files, tmp_path):
    for root in (tmp_path, tmp_path / "new"):
        line = assert_refused(
            tmp_path, name, name, str(root), f"{name}.npz", *files, "AAE_PRIOR_DATA", "network", root=root
        )
        assert line.startswith(str(root) + ":")
    assert not list(tmp_path.iterdir())


def test_the_root_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    homes = {key: tmp_path / key for key in ("argument", "variable", "cache")}
    monkeypatch.setenv("XDG_CACHE_HOME", str(homes["cache"]))
    monkeypatch.setenv("AAE_PRIOR_DATA", str(homes["variable"]))
    assert data_root(homes["argument"]) == homes["argument"] and data_root() == homes["variable"]
    monkeypatch.setenv("AAE_PRIOR_DATA", "")
    assert data_root() == homes["cache"] / "aae_prior"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache" / "aae_prior"
    homes["variable"].mkdir()
    npz(homes["variable"] / "mnist.npz", n=60, classes=10, shape=(28, 28), y_test=np.arange(6))
    monkeypatch.setenv("AAE_PRIOR_DATA", str(homes["variable"]))
    assert len(D.load("mnist")) == 60


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("svhn", dict(n=40, classes=10, y_train=1 + np.arange(40) % 10)),  # digit 0 stored as 10
        ("flowers102", dict(n=204, y_train=1 + np.arange(204) % 102, x_test=None, y_test=None)),
        ("mnist", dict(n=40, classes=9, shape=(28, 28))),
        ("cifar10", dict(n=44, classes=11)),
    ],
)
def test_known_sets_have_their_own_labels(name, wrong, tmp_path):
    npz(tmp_path / f"{name}.npz", **wrong)
    assert_refused(tmp_path, name, str(tmp_path / f"{name}.npz"), root=tmp_path)


def test_a_damaged_array_file_is_neither_replaced_nor_passed_over(tmp_path):
    written(tmp_path / "mnist.npz", b"PK damaged")
    assert_refused(tmp_path, "mnist", "mnist.npz", root=tmp_path)
    linked(tmp_path / "svhn.npz", tmp_path / "absent")
    assert_refused(tmp_path, "svhn", "svhn.npz: is not a regular file", root=tmp_path)


def test_a_root_that_is_a_file_is_refused(tmp_path):
    assert_refused(tmp_path, "mnist", "AAE_PRIOR_DATA", root=written(tmp_path / "root", b"1"))


# -- the published archives ------------------------------------------------------------------------------------------


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(a):
    return gzip.compress(
        bytes([0, 0, 8, a.ndim]) + np.array(a.shape, ">i4").tobytes() + a.astype(np.uint8).tobytes(), mtime=0
    )


def tarball(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def mat(**values):
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, values)
    return stream.getvalue()


def jpeg(size):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
        stream, "JPEG"
    )
    return stream.getvalue()


def published(name, patch):
    "Small archives of the published form by their path in the root, their checksums put in the place of the real ones."
    from torchvision import datasets as tv

    rng = np.random.default_rng(0)
    if name in ("mnist", "fashion_mnist"):
        source = tv.MNIST if name == "mnist" else tv.FashionMNIST
        files = {
            "train-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (40, 28, 28))),
            "train-labels-idx1-ubyte.gz": idx(np.arange(40) % 10),
            "t10k-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (20, 28, 28))),
            "t10k-labels-idx1-ubyte.gz": idx(np.arange(20) % 10),
        }
        patch.setattr(source, "resources", [(file, md5(content)) for file, content in files.items()])
        return {f"{source.__name__}/raw/{file}": content for file, content in files.items()}
    if name == "svhn":
        files = {
            f"{part}_32x32.mat": mat(
                X=rng.integers(0, 256, (32, 32, 3, n)).astype(np.uint8), y=1 + np.arange(n)[:, None] % 10
            )
            for part, n in (("train", 40), ("test", 20))
        }
        patch.setattr(
            tv.SVHN,
            "split_list",
            {
                part: [f"http://x/{part}", f"{part}_32x32.mat", md5(files[f"{part}_32x32.mat"])]
                for part in ("train", "test")
            },
        )
        return files
    if name == "cifar10":

        def batch():
            pixels = rng.integers(0, 256, (20, 3072)).astype(np.uint8)
            return pickle.dumps({"data": pixels, "labels": list(np.arange(20) % 10)})

        inner = {f"data_batch_{i}": batch() for i in range(1, 6)} | {
            "test_batch": batch(),
            "batches.meta": pickle.dumps({"label_names": list("abcdefghij")}),
        }
        listed = [[file, md5(content)] for file, content in inner.items()]
        patch.setattr(tv.CIFAR10, "train_list", listed[:5])
        patch.setattr(tv.CIFAR10, "test_list", listed[5:6])
        patch.setattr(tv.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": listed[6][1]})
        tgz = tarball({f"cifar-10-batches-py/{file}": content for file, content in inner.items()})
        patch.setattr(tv.CIFAR10, "tgz_md5", md5(tgz))
        return {"cifar-10-python.tar.gz": tgz}
    n = 408
    files = {
        "102flowers.tgz": tarball({f"jpg/image_{i:05}.jpg": jpeg((40 + i % 7, 36)) for i in range(1, n + 1)}),
        "imagelabels.mat": mat(labels=1 + np.arange(n)[None] // 4),
        "setid.mat": mat(
            trnid=np.arange(1, n + 1, 4)[None],
            valid=np.arange(2, n + 1, 4)[None],
            tstid=np.sort(np.r_[3 : n + 1 : 4, 4 : n + 1 : 4])[None],
        ),
    }
    patch.setattr(
        tv.Flowers102,
        "_file_dict",
        {key: (file, md5(files[file])) for key, file in zip(("image", "label", "setid"), files)},
    )
    return {f"flowers-102/{file}": content for file, content in files.items()}


COUNTS = {
    "mnist": (40, 20, 1, 10),
    "fashion_mnist": (40, 20, 1, 10),
    "svhn": (40, 20, 3, 10),
    "cifar10": (100, 20, 3, 10),
    "flowers102": (368, 40, 3, 102),
}


def assert_made(name, root, monkeypatch):
    "The known data set is right, stands as one array file, and is not made again."
    found = D.load(name, root=root)
    n, n_test, channels, classes = COUNTS[name]
    assert (len(found), len(found.x_test), found.channels, found.classes, found.size) == (
        n,
        n_test,
        channels,
        classes,
        32,
    )
    assert found.y_train.min() == 0 and found.y_train.max() == classes - 1 and found.y_test.max() < classes
    assert not list(root.glob(".making-*"))
    with monkeypatch.context() as once:
        once.setattr(D, "fetch", None)
        assert D.load(name, root=root).fingerprint == found.fingerprint
    return found


@pytest.mark.parametrize("name", COUNTS)
def test_archives_in_the_root_become_one_array_file(name, tmp_path, monkeypatch):
    for file, content in published(name, monkeypatch).items():
        written(tmp_path / file, content)
    before = footprint(tmp_path)
    found = assert_made(name, tmp_path, monkeypatch)
    after = footprint(tmp_path)
    assert {path: after[path] for path in before} == before and set(after) - set(before) == {
        str(tmp_path / f"{name}.npz")
    }
    if name == "svhn":
        assert found.y_train[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    if name == "cifar10":
        assert found.class_names == list("abcdefghij")
    if name == "flowers102":
        pairs = dict(zip(found.names_train + found.names_test, torch.cat([found.y_train, found.y_test]).tolist()))
        assert (
            pairs == {f"image_{i:05}.jpg": (i - 1) // 4 for i in range(1, 409)}
            and found.class_names[0] == "pink primrose"
        )
        assert D.load(name, root=tmp_path, size=128).size == 128


@pytest.mark.parametrize("name", COUNTS)
def test_missing_archives_are_downloaded_and_checked(name, tmp_path, monkeypatch):
    files = published(name, monkeypatch)
    by_name = {Path(file).name: content for file, content in files.items()} | {
        part: files.get(f"{part}_32x32.mat") for part in ("train", "test")
    }

    class Response(io.BytesIO):
        def __init__(self, url, content):
            super().__init__(content)
            self.url, self.length = url, len(content)

    def serve(request, change=lambda content: content):
        url = request.full_url
        return Response(url, change(by_name[url.rsplit("/", 1)[1]]))

    monkeypatch.setattr(urllib.request, "urlopen", lambda request: serve(request, lambda content: content[:-1] + b"?"))
    assert_refused(tmp_path, name, name, str(tmp_path), root=tmp_path / "data")  # a wrong checksum
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(urllib.request, "urlopen", serve)
    assert_made(name, tmp_path / "data", monkeypatch)
    assert [file.name for file in (tmp_path / "data").iterdir()] == [f"{name}.npz"]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", COUNTS)
def test_a_damaged_archive_in_the_root_is_named_and_kept(name, tmp_path, monkeypatch):
    files = published(name, monkeypatch)
    for file, content in files.items():
        written(tmp_path / file, content)
    last = list(files)[-1]
    written(tmp_path / last, files[last][:-5] + b"wrong")
    assert_refused(tmp_path, name, str(tmp_path / last), "md5", root=tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    for file, content in published("mnist", monkeypatch).items():
        written(tmp_path / file, content)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    before = set(footprint(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        D.load("mnist", root=tmp_path)
    assert set(footprint(tmp_path)) == before


def test_incomplete_known_sets_say_so(tmp_path):
    npz(tmp_path / "svhn.npz", n=40, classes=10, shape=(32, 32, 3), y_test=np.arange(6), caveat=np.array("test crops"))
    caveat = D.load("svhn", root=tmp_path).caveat
    assert caveat.startswith("test crops; ") and "40 + 6" in caveat and "73,257 + 26,032" in caveat


# -- what comes out --------------------------------------------------------------------------------------------------


def test_digits():
    data = D.load("digits")
    assert (len(data), len(data.x_test), data.channels, data.classes) == (1437, 360, 1, 10)
    assert data.y_train.dtype == torch.int64 and data.x_train.dtype == torch.uint8
    from sklearn.datasets import load_digits

    counts = np.bincount(load_digits().target)
    assert np.array_equal(data.y_train.bincount() + data.y_test.bincount(), counts)
    assert np.abs(data.y_test.bincount().numpy() - counts * 360 / 1797).max() <= 1
    original = D.load("digits", size=8)
    pixels = torch.cat([original.x_train, original.x_test]).flatten(1).tolist()
    assert (
        sorted(pixels) == sorted((load_digits().data * 255 / 16).round().astype(int).tolist()) and original.caveat == ""
    )
    assert torch.equal(original.y_train, data.y_train) and data.x_train.min() == 0 and data.x_train.max() == 255
    assert D.load("digits").fingerprint == data.fingerprint != D.load("digits", size=64).fingerprint


def test_a_padded_digit_keeps_every_pixel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    data = D.load(npz(tmp_path / "mine.npz", shape=(28, 28), x_train=x))
    assert torch.equal(data.x_train[:, 0, 2:30, 2:30], torch.from_numpy(x)) and data.caveat == ""
    assert data.x_train.sum() == x.sum(dtype=np.int64)
    assert D.load(tmp_path / "mine.npz", size=64).x_train.shape == (30, 1, 64, 64)


@pytest.mark.parametrize(
    "shape",
    [(8, 8), (8, 8, 1), (1, 8, 8), (8, 8, 3), (3, 8, 8), (40, 50), (3, 61, 40), (32, 32, 3), (32, 32), (33, 31, 3)],
)
@pytest.mark.parametrize("size", [32, 64])
def test_shapes_sizes_and_strides(shape, size, tmp_path):
    data = D.load(npz(tmp_path / "mine.npz", shape=shape), size=size)
    channels = 3 if 3 in shape else 1
    for x, n in ((data.x_train, 30), (data.x_test, 6)):
        assert x.shape == (n, channels, size, size) and x.dtype == torch.uint8
        assert x.permute(0, 2, 3, 1).is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    batch = data.images(torch.tensor([3, 1]))
    assert batch.dtype == torch.float32 and batch.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(batch, D.normalise(data.x_train[[3, 1]])) and batch.min() >= -1 and batch.max() <= 1


def test_channels_first_and_last_are_the_same_data(tmp_path):
    first = D.load(
        npz(tmp_path / "first.npz", x_train=X.transpose(0, 3, 1, 2).copy(), x_test=X[:6].transpose(0, 3, 1, 2).copy())
    )
    last = D.load(npz(tmp_path / "last.npz", x_train=X, x_test=X[:6]))
    fortran = D.load(npz(tmp_path / "fortran.npz", x_train=np.asfortranarray(X), x_test=X[:6]))
    assert first.fingerprint == last.fingerprint == fortran.fingerprint and first.name == "first"


def test_the_centre_is_cut_out(tmp_path):
    x = np.zeros((30, 8, 20), np.uint8)
    x[:, :, 6:14] = np.random.default_rng(0).integers(1, 256, (30, 8, 8))
    data = D.load(npz(tmp_path / "mine.npz", x_train=x, x_test=x[:6]), size=8)
    assert torch.equal(data.x_train[:, 0], torch.from_numpy(x[:, :, 6:14]))


def test_held_out_images_are_a_fixed_stratified_tenth(tmp_path):
    y = np.repeat([0, 1, 2], [100, 60, 40])
    x = np.arange(200, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    x[:, -1, -1] += 1
    path = npz(
        tmp_path / "mine.npz",
        x_train=x,
        y_train=y,
        x_test=None,
        y_test=None,
        names=np.array([f"{i}.jpg" for i in range(200)]),
    )
    one, two = D.load(path, size=8), D.load(path, size=8)
    assert one.y_test.bincount().tolist() == [10, 6, 4] and one.y_train.bincount().tolist() == [90, 54, 36]
    train, test = one.x_train[:, 0, 0, 0].tolist(), one.x_test[:, 0, 0, 0].tolist()
    assert sorted(train + test) == list(range(200)) and train == sorted(train)
    assert one.names_train == [f"{i}.jpg" for i in train] and one.names_test == [f"{i}.jpg" for i in test]
    assert one.fingerprint == two.fingerprint and "held out" in one.caveat


# -- one's own pictures as people have them ---------------------------------------------------------------------------


def flat(folder, n=12, **kw):
    "Pictures alone in a folder."
    for i in range(n):
        picture(folder / f"{i:02}.png", **kw)
    return folder


def split_folder(folder, *names, **kw):
    "A folder with one sub-folder of classes (ant, bee) for each name."
    for name in names:
        picture_folder(folder / name, **kw)
    return folder


def deep_folder(folder, most, dtype=np.uint16, suffix="png"):
    "Grey pictures of 16 bits in two classes; the brightest pixel of all is `most`, the darkest 0."
    ramp = np.linspace(0, most, 144).round().astype(dtype).reshape(12, 12)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(ramp // (1 + i)).save(folder / name / f"{i}.{suffix}")
    return folder


def see_through(folder, mode="RGBA", suffix="png", **kw):
    "Pictures whose left half is transparent, and black below."
    folder.mkdir(parents=True)
    for i in range(12):
        rgba = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
        rgba.paste((200, 200, 200, 255) if mode == "LA" else (200, 100, 0, 255), (6, 0, 12, 12))
        rgba.convert(mode).save(folder / f"{i:02}.{suffix}", **kw)
    return folder


def palette_folder(folder):
    "Palette pictures, whose first colour is transparent."
    folder.mkdir(parents=True)
    for i in range(12):
        image = Image.new("P", (12, 12), 1)
        image.putpalette([0, 0, 0, 200, 100, 0])
        image.paste(0, (0, 0, 6, 12))
        image.save(folder / f"{i:02}.gif", transparency=0)
    return folder


def with_files(folder, **files):
    "The folder, and files in it by name (with __ for / and _ for .) and content."
    for name, content in files.items():
        written(folder / name.replace("__", "/").replace("_", "."), content)
    return folder


def with_classes(folder, pictures=None, **kw):
    "A folder of two classes with further pictures (mode -> its file in class ant)."
    folder = picture_folder(folder, **kw)
    for mode, name in (pictures or {}).items():
        picture(folder / "ant" / name, mode=mode)
    return folder


def stripes(folder, size=(20, 10)):
    "Pictures of a red, a green and a blue third, from left to right."
    folder.mkdir(parents=True)
    for i in range(12):
        image = Image.new("RGB", size, (0, 200, 0))
        image.paste((200, 0, 0), (0, 0, size[0] // 3, size[1]))
        image.paste((0, 0, 200), (size[0] - size[0] // 3, 0, *size))
        image.save(folder / f"{i:02}.png")
    return folder


def one_colour_in(folder, colour):
    folder = with_classes(folder)
    Image.new("RGB", (12, 12), colour).save(folder / "bee" / "blank.png")
    return folder


def corner(data, row=0, column=0):
    return data.x_train[0, :, row, column].tolist()


U16 = np.arange(30 * 64, dtype=np.uint16).reshape(30, 8, 8)
TWELVE = dict(size=12)
UNLABELLED = dict(classes=1, class_names=["all"])
ANT_BEE = dict(classes=2, class_names=["ant", "bee"])

# what makes the source in a folder; arguments of load; what is found (by attribute of Data; caveat: words of it, test:
# number of test images, else: a check), or, as a list, the words of the refusal
KINDS = {
    "one folder a class": (with_classes, {}, dict(ANT_BEE, n=11, test=1, caveat="held out")),
    "pictures alone": (flat, {}, dict(UNLABELLED, n=11, test=1, channels=3, caveat="one image in 10 is held out")),
    "grey pictures alone": (lambda f: flat(f, mode="L"), {}, dict(UNLABELLED, channels=1)),
    "one class alone": (
        lambda f: picture_folder(f, classes=["ant"]),
        {},
        dict(classes=1, class_names=["ant"], n=5, test=1),
    ),
    "train and test": (
        lambda f: split_folder(f, "train", "test"),
        TWELVE,
        dict(ANT_BEE, n=12, test=12, no_caveat=True),
    ),
    "train and val": (lambda f: split_folder(f, "train", "val"), TWELVE, dict(ANT_BEE, n=12, test=12, no_caveat=True)),
    "train and valid": (lambda f: split_folder(f, "train", "valid"), {}, dict(ANT_BEE, n=12, test=12)),
    "train and validation": (lambda f: split_folder(f, "train", "validation"), {}, dict(ANT_BEE, n=12, test=12)),
    "Training and Testing": (lambda f: split_folder(f, "Training", "Testing"), {}, dict(ANT_BEE, n=12, test=12)),
    "train, val and test": (
        lambda f: split_folder(f, "train", "val", "test"),
        {},
        dict(ANT_BEE, n=12, test=12, caveat="passed over: val/"),
    ),
    "train alone": (lambda f: split_folder(f, "train"), {}, dict(ANT_BEE, n=11, test=1, caveat="held out")),
    "train and test of pictures alone": (
        lambda f: flat(flat(f / "train").parent / "test", n=5).parent,
        {},
        dict(UNLABELLED, n=12, test=5),
    ),
    "a class that is called train": (
        lambda f: picture_folder(f, classes=["car", "test", "train"]),
        {},
        dict(classes=3, class_names=["car", "test", "train"]),
    ),
    "a test class that has no training images": (
        lambda f: picture_folder(split_folder(f, "train", "test") / "test", classes=["cow"]).parent,
        {},
        ["test/ has classes that train/ has not: cow"],
    ),
    "test pictures without classes": (
        lambda f: flat(split_folder(f, "train") / "test").parent,
        {},
        ["test/ has classes that train/ has not: all"],
    ),
    "a folder in which the classes' folder lies": (
        lambda f: split_folder(f, "images"),
        {},
        ["sub-folders inside classes: images/ant, images/bee", "name the folder that holds the classes"],
    ),
    "hidden files": (
        lambda f: with_files(with_classes(f), _hidden=b"1", ant___DS_Store=b"1"),
        TWELVE,
        dict(ANT_BEE, n=11, caveat="held out"),
    ),
    "a text beside the pictures of a class": (
        lambda f: with_files(with_classes(f), ant__notes_txt=b"hello"),
        {},
        dict(ANT_BEE, n=11, caveat="passed over: ant/notes.txt"),
    ),
    "texts beside pictures alone": (
        lambda f: with_files(flat(f), labels_csv=b"name,label", LICENSE="frei verfügbar".encode()),
        {},
        dict(UNLABELLED, n=11, caveat="passed over: LICENSE, labels.csv"),
    ),
    "a text in Latin-1": (
        lambda f: with_files(flat(f), notes_txt="schön".encode("latin-1")),
        {},
        dict(UNLABELLED, caveat="notes.txt"),
    ),
    "a text beside the classes": (
        lambda f: with_files(with_classes(f), README_md=b"about"),
        {},
        dict(ANT_BEE, n=11, caveat="passed over: README.md"),
    ),
    "texts alone": (lambda f: with_files(f, a_txt=b"1", b_txt=b"2"), {}, ["no training images, only other files"]),
    "a class of texts": (
        lambda f: with_files(with_classes(f), cow__a_txt=b"moo"),
        {},
        ["no training images of cow, only other files"],
    ),
    "a text that is called a picture": (
        lambda f: with_files(with_classes(f), ant__a_jpg=b"hello"),
        {},
        ["ant/a.jpg (not an image)"],
    ),
    "an archive among the pictures": (
        lambda f: with_files(with_classes(f), ant__a_zip=b"PK\x03\x04\x00\xff"),
        {},
        ["ant/a.zip (not an image)"],
    ),
    "photographs of a kind that is not read": (
        lambda f: with_files(with_classes(f), ant__a_heic=b"ftypheic"),
        {},
        ["ant/a.heic (not an image)"],
    ),
    "16 bits, all used": (
        lambda f: deep_folder(f, 65535),
        TWELVE,
        dict(ANT_BEE, channels=1, caveat="12 of 12 images of 16 bits, scaled so that 65535 is white", brightest=255),
    ),
    "16 bits, of which 12 are used": (
        lambda f: deep_folder(f, 4095),
        TWELVE,
        dict(ANT_BEE, channels=1, caveat="scaled so that 4095 is white", brightest=255),
    ),
    "16 bits, of which 10 are used, TIFF": (
        lambda f: deep_folder(f, 600, suffix="tif"),
        TWELVE,
        dict(ANT_BEE, caveat="1023 is white", brightest=150),
    ),
    "32 bits": (
        lambda f: deep_folder(f, 10**6, np.int32, "tif"),
        {},
        ["12 of 12 files", "ant/0.tif (neither 8 nor 16 bits a channel"],
    ),
    "transparency": (
        see_through,
        TWELVE,
        dict(UNLABELLED, channels=3, caveat="12 of 12 images with transparency, laid on white", corner=[255, 255, 255]),
    ),
    "transparency on a colour of one's choice": (
        see_through,
        dict(TWELVE, background="#0000ff"),
        dict(channels=3, caveat="laid on #0000ff", corner=[0, 0, 255]),
    ),
    "grey with transparency": (
        lambda f: see_through(f, "LA"),
        TWELVE,
        dict(channels=1, caveat="laid on white", corner=[255]),
    ),
    "transparency of a palette": (palette_folder, TWELVE, dict(channels=3, caveat="laid on white", corner=[255] * 3)),
    "WebP with transparency": (
        lambda f: see_through(f, suffix="webp", lossless=True),
        TWELVE,
        dict(channels=3, caveat="laid on white", corner=[255] * 3),
    ),
    "an alpha channel that hides nothing": (
        lambda f: flat(f, mode="RGBA"),
        TWELVE,
        dict(UNLABELLED, caveat="one image in 10 is held out", without="transparency"),
    ),
    "white on transparent": (
        lambda f: see_through(f, "LA"),
        dict(background="#c8c8c8"),
        ["00.png", "one colour all over", "laid on #c8c8c8"],
    ),
    "wide pictures, cut": (
        stripes,
        dict(size=10),
        dict(caveat="12 of 12 images cut to their central square", corner=[200, 0, 0]),
    ),
    "wide pictures, padded": (
        stripes,
        dict(size=20, non_square="pad"),
        dict(caveat="12 of 12 images padded to squares with white", corner=[255] * 3, middle=[200, 0, 0]),
    ),
    "high pictures, padded with a colour": (
        lambda f: stripes(f, (10, 20)),
        dict(size=20, non_square="pad", background="black"),
        dict(caveat="padded to squares with black", corner=[0] * 3),
    ),
    "pictures of many shapes": (
        lambda f: picture(flat(f) / "wide.png", size=(30, 12)).parent,
        TWELVE,
        dict(UNLABELLED, n=12, caveat="1 of 13 images cut"),
    ),
    "a black picture": (lambda f: one_colour_in(f, "black"), {}, ["bee/blank.png", "one colour all over"]),
    "a picture of one colour": (lambda f: one_colour_in(f, (9, 80, 200)), {}, ["bee/blank.png", "one colour all over"]),
    "pictures of many modes": (
        lambda f: with_classes(f, {"1": "a.png", "P": "b.gif", "CMYK": "c.jpg", "L": "d.bmp", "YCbCr": "e.jpg"}),
        {},
        dict(ANT_BEE, n=16, test=1, channels=3),
    ),
    "arrays without labels": (
        lambda f: npz(f.with_suffix(".npz"), y_train=None, y_test=None),
        {},
        dict(UNLABELLED, n=30, test=6),
    ),
    "training images alone": (
        lambda f: npz(f.with_suffix(".npz"), x_test=None, y_train=None, y_test=None),
        {},
        dict(UNLABELLED, n=27, test=3),
    ),
    "one label": (lambda f: npz(f.with_suffix(".npz"), classes=1), {}, dict(classes=1, class_names=["0"])),
    "class names": (
        lambda f: npz(f.with_suffix(".npz"), class_names=np.array(["c", "a", "b"])),
        {},
        dict(classes=3, class_names=["c", "a", "b"], labels=[0, 1, 2]),
    ),
    "class names called classes": (
        lambda f: (
            npz(f.with_suffix(".npz"), classes=3, **{"x_train": X})
            and archive(f.with_suffix(".npz"), parts() + [("classes.npy", npy(np.array(["c", "a", "b"])))])
        ),
        {},
        dict(class_names=["c", "a", "b"]),
    ),
    "labels in words": (
        lambda f: npz(
            f.with_suffix(".npz"),
            y_train=np.array(["cow", "ant", "bee"] * 10),
            y_test=np.array(["ant", "cow"] * 3),
        ),
        {},
        dict(classes=3, class_names=["ant", "bee", "cow"], labels=[2, 0, 1], test_labels=[0, 2, 0]),
    ),
    "labels in words, in an order of one's own": (
        lambda f: npz(
            f.with_suffix(".npz"),
            y_train=np.array(["cow", "ant", "bee"] * 10),
            y_test=np.array(["ant", "cow"] * 3),
            class_names=np.array(["bee", "cow", "ant"]),
        ),
        {},
        dict(classes=3, class_names=["bee", "cow", "ant"], labels=[1, 2, 0]),
    ),
    "arrays of 16 bits": (
        lambda f: npz(f.with_suffix(".npz"), x_train=U16, x_test=U16[:6]),
        dict(size=8),
        dict(channels=1, caveat="scaled so that 2047 is white", brightest=239),
    ),
    "wide arrays, padded": (
        lambda f: npz(f.with_suffix(".npz"), shape=(8, 12, 3)),
        dict(size=12, non_square="pad", background="red"),
        dict(caveat="images of 12x8 padded to squares with red", corner=[255, 0, 0]),
    ),
    "arrays of other names": (
        lambda f: archive(f.with_suffix(".npz"), [("images.npy", npy(X)), ("labels.npy", npy(Y))]),
        {},
        ["x_train is not among the arrays (images, labels)"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_own_pictures_are_read_as_expected_or_refused(kind, tmp_path):
    make, arguments, expected = KINDS[kind]
    source = make(tmp_path / "mine")
    if isinstance(expected, list):
        assert_refused(tmp_path, source, str(source), *expected, **arguments)
        return
    before = footprint(tmp_path)
    data = D.load(source, **arguments)
    assert footprint(tmp_path) == before and data.name == "mine"
    caveat = "" if "no_caveat" in expected else data.caveat
    found = dict(
        n=len(data),
        test=len(data.x_test),
        classes=data.classes,
        class_names=data.class_names,
        channels=data.channels,
        caveat=expected.get("caveat", "") if expected.get("caveat", "") in data.caveat else data.caveat,
        no_caveat=data.caveat == caveat,
        without=expected.get("without") if expected.get("without", "nothing") not in data.caveat else data.caveat,
        labels=data.y_train[:3].tolist(),
        test_labels=data.y_test[:3].tolist(),
        brightest=max(int(data.x_train.max()), int(data.x_test.max())),
        corner=corner(data),
        middle=corner(data, row=data.size // 2),
    )
    assert {key: found[key] for key in expected} == expected
    assert data.size == arguments.get("size", 32) and data.caveat.count("held out") <= 1
    assert data.y_train.unique().tolist() == list(range(data.classes)) and data.y_test.max() < data.classes
    assert len(data.x_train) == len(data.y_train) and len(data.x_test) == len(data.y_test)
    if data.names_train:
        assert all((source / name).is_file() for name in data.names_train + data.names_test)
        assert not set(data.names_train) & set(data.names_test)


def test_background_and_frame_change_nothing_where_there_is_nothing_to_change(tmp_path):
    folder = picture_folder(tmp_path / "mine")
    plain, other = D.load(folder), D.load(folder, background="navy", non_square="pad")
    assert plain.fingerprint == other.fingerprint and plain.caveat == other.caveat
    assert D.load("digits", background="navy", non_square="pad").fingerprint == D.load("digits").fingerprint


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(background="whiteish"), ["'whiteish'", "colour"]),
        (dict(background=3), ["3", "colour"]),
        (dict(background=None), ["None", "colour"]),
        (dict(non_square="stretch"), ["'stretch'", "crop, pad"]),
    ],
)
def test_backgrounds_and_frames_that_are_none_are_refused(wrong, words, tmp_path):
    assert_refused(tmp_path, flat(tmp_path / "mine"), *words, **wrong)


def test_images_without_labels_have_no_condition(tmp_path):
    data = D.load(flat(tmp_path / "mine"))
    assert repr(data).endswith("no labels") and data.y_train.tolist() == [0] * 11
    with pytest.raises(ValueError, match="mine has no labels.*condition none or category"):
        data.labelled()
    assert len(data.subset(5, seed=0)) == 5 and len(data.with_validation(seed=0).x_test) == 1


def test_a_folder_of_images(tmp_path):
    folder = picture_folder(tmp_path / "my pets", classes=["dog", "cat"], each=10, size=(40, 36))
    for hidden in (".DS_Store", "dog/.hidden", "cat/Thumbs.db"):
        written(folder / hidden, b"1")
    written(folder / "README.txt", b"about these")
    before = footprint(tmp_path)
    data = D.load(str(folder))
    assert footprint(tmp_path) == before
    assert (data.class_names, data.channels, len(data), len(data.x_test), data.name) == (
        ["cat", "dog"],
        3,
        18,
        2,
        "my_pets",
    )
    for i in (0, 17):
        with Image.open(folder / data.names_train[i]) as image:
            square = np.asarray(image.crop((2, 0, 38, 36)).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(data.x_train[i].permute(1, 2, 0).numpy().astype(int) - square).max() <= 1
        assert data.names_train[i].startswith(data.class_names[data.y_train[i]])
    assert D.load(picture_folder(tmp_path / "grey", mode="L")).channels == 1
    picture(tmp_path / "grey" / "bee" / "coloured.png")
    assert D.load(tmp_path / "grey").channels == 3


def test_a_photograph_is_turned_upright(tmp_path):
    folder = picture_folder(tmp_path / "pictures", size=(32, 32))
    x = np.zeros((32, 32, 3), np.uint8)
    x[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(x).save(folder / "ant" / "a.png", exif=exif)
    data = D.load(folder)
    everything = dict(zip(data.names_train + data.names_test, torch.cat([data.x_train, data.x_test])))
    assert everything["ant/a.png"][:, 24:].min() == 255 and everything["ant/a.png"][:, :24].max() == 0


def test_quantise_inverts_normalise_exactly():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(D.quantise(D.normalise(every)), every) and torch.equal(
        D.quantise(D.normalise(every).double()), every
    )
    assert D.quantise(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]
    for bad in (torch.tensor([float("nan")]), torch.tensor([float("inf")]), every):
        with pytest.raises(ValueError):
            D.quantise(bad)
    x = D.normalise(every)
    with pytest.raises(ValueError):
        D.normalise(x)
    assert x.max() == 1, "the argument must not be changed"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return D.load(
        npz(
            tmp_path_factory.mktemp("mine") / "mine.npz",
            n=130,
            classes=3,
            names=np.array([f"{i}.jpg" for i in range(130)]),
        ),
        size=8,
    )


def test_images_are_taken_by_number_in_their_order(mine):
    index = [7, 3, 129, 3]
    x = mine.images(index)
    assert torch.equal(D.quantise(x), mine.x_train[index]) and x.dtype == torch.float32
    assert torch.equal(mine.images(torch.tensor(index)), x) and x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mine.images([5, 0], "test"), D.normalise(mine.x_test[[5, 0]]))
    with pytest.raises(ValueError, match="allowed: train, test"):
        mine.images(index, "validation")


def test_a_label_becomes_a_one_hot_row(mine):
    s = mine.labelled().s_train
    assert s.shape == (130, 3) and s.dtype == torch.float32 and torch.equal(s.argmax(1), mine.y_train)
    assert s.sum() == 130 and mine.s_train is None


def test_conditions_that_do_not_fit_are_refused(mine):
    fits = mine.with_condition(np.ones((130, 4)), np.ones((6, 4)))
    assert fits.s_train.dtype == torch.float32 and fits.s_test.shape == (6, 4) and mine.s_train is None
    for train, test in (
        (np.ones((129, 4)), np.ones((6, 4))),
        (np.ones((130, 4)), np.ones((6, 5))),
        (np.ones(130), np.ones(6)),
        (np.ones((130, 4)), np.ones((7, 4))),
        (np.full((130, 4), np.nan), np.ones((6, 4))),
    ):
        with pytest.raises(ValueError, match="allowed"):
            mine.with_condition(train, test)


def test_validation_images_come_from_the_training_images(mine):
    data = mine.labelled().with_validation(seed=1)
    assert (len(data), len(data.x_test)) == (109, 21) and sorted(data.names_train + data.names_test) == sorted(
        mine.names_train
    )
    assert data.y_test.bincount().max() - data.y_test.bincount().min() <= 2 and data.s_test.argmax(1).equal(data.y_test)
    index = [int(name.removesuffix(".jpg")) for name in data.names_test]
    assert torch.equal(data.x_test, mine.x_train[index]) and torch.equal(data.y_test, mine.y_train[index])
    assert data.fingerprint != mine.fingerprint != mine.with_validation(seed=2).fingerprint != data.fingerprint


def test_subsets_are_stratified_and_nested(mine):
    data = mine.labelled()
    kept = {n: data.subset(n, seed=1) for n in (3, 4, 60, 65, 129, 130)}
    for n, part in kept.items():
        counts = part.y_train.bincount(minlength=3)
        assert len(part) == n and counts.min() >= 1 and counts.max() - counts.min() <= 2
        index = [int(name.removesuffix(".jpg")) for name in part.names_train]
        assert (
            index == sorted(index)
            and torch.equal(part.x_train, data.x_train[index])
            and torch.equal(part.s_train, data.s_train[index])
        )
        assert part.x_train.is_contiguous(memory_format=torch.channels_last) and torch.equal(part.x_test, data.x_test)
    assert set(kept[60].names_train) < set(kept[65].names_train) < set(kept[129].names_train)
    assert kept[130].fingerprint == data.fingerprint != kept[129].fingerprint
    assert data.subset(60, seed=1).fingerprint == kept[60].fingerprint != data.subset(60, seed=2).fingerprint
    for wrong in (0, 2, 131):
        with pytest.raises(ValueError, match="n_train"):
            data.subset(wrong, seed=1)


def test_the_fingerprint_sees_every_array(mine):
    from dataclasses import replace

    x = mine.x_test.clone()
    x[0, 0, 0, 0] ^= 1
    others = [replace(mine, x_test=x), replace(mine, y_train=mine.y_train.flip(0)), mine.labelled()]
    assert len({mine.fingerprint, *(data.fingerprint for data in others)}) == 4
    assert mine.to("cpu").fingerprint == mine.fingerprint and len(mine.fingerprint) == 64


def test_wrong_splits_are_refused(mine):
    assert torch.equal(mine.images([2], "test"), D.normalise(mine.x_test[2:3]))
    with pytest.raises(ValueError, match="split"):
        mine.images([0], "valid")


def test_small_classes_are_last_to_be_held_out_and_first_to_be_kept(tmp_path):
    y = np.repeat([0, 1, 2], [100, 97, 3])
    assert np.bincount(y[stratified_order(y, seed=0)[:20]], minlength=3).tolist() == [10, 10, 0]
    data = D.load(npz(tmp_path / "mine.npz", n=200, y_train=y), size=8)
    assert data.subset(3, seed=0).y_train.tolist() == [0, 1, 2] and data.subset(
        20, seed=0
    ).y_train.bincount().tolist() == [10, 9, 1]


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    seed=st.integers(0, 2**31 - 1),
    share=st.floats(0.05, 0.95),
)
def test_every_prefix_is_stratified(labels, seed, share):
    order = stratified_order(labels, seed)
    n = int(share * len(labels))
    counts, all_counts = (np.bincount(np.asarray(labels)[part], minlength=5) for part in (order[:n], order))
    assert sorted(order) == list(range(len(labels)))
    assert np.abs(counts - all_counts * n / len(labels)).max() <= 2.5
