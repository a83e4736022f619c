"""What a file is that holds no weights that can be read, in words: so that the user knows what to do instead."""

import json
import zipfile
from pathlib import Path

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow, MATLAB), not one of PyTorch"),
    (0, b"\x93NUMPY", "a NumPy array, not a state_dict"),
    (0, b"\x89PNG", "an image (PNG)"),
    (0, b"\xff\xd8\xff", "an image (JPEG)"),
    (0, b"GIF8", "an image (GIF)"),
    (0, b"%PDF", "a PDF document"),
    (0, b"GGUF", "a GGUF file (llama.cpp), not one of PyTorch"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (0, b"BZh", "compressed by bzip2: unpack it first"),
    (0, b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (4, b"TFL3", "a TensorFlow Lite model, not one of PyTorch"),
    (
        257,
        b"ustar",
        "a tar archive: unpack it first (the tar format of PyTorch before 0.2 cannot be read safely: save it again)",
    ),
)
_PICKLE, _TORCHS_NUMBER = b"\x80", b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""How a pickle begins, and what torch wrote first into each file before version 1.6."""

_TEXTS = (
    ("version https://git-lfs", "a pointer of Git LFS: the weights themselves were not downloaded (`git lfs pull`)"),
    ("<!doctype html", "a web page: the download did not give the file"),
    ("<html", "a web page: the download did not give the file"),
)
_NPZ = (
    "an archive of NumPy arrays: `torch.save({name: torch.from_numpy(array) for name, array in"
    " numpy.load(FILE).items()}, 'weights.pth')` turns it into a state_dict"
)


def kind(path: Path) -> str | None:
    """Return what a file is, in words; None where it may be one that `torch.save` wrote."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        return "an empty file"
    found = next((said for at, magic, said in _MAGIC if head[at : at + len(magic)] == magic), None)
    if found is not None:
        return found
    if head.startswith(b"PK"):
        return _archive(path)
    if path.suffix == ".onnx" or b"onnx" in head[:64] or (head[:1] == b"\x08" and b"pytorch" in head[:64]):
        return "an ONNX model: it has a graph, not a state_dict; export the weights from PyTorch"
    if head.startswith(_PICKLE):
        return (
            None if _TORCHS_NUMBER in head[:32] else "a pickle that torch.save did not write: to load it may run code"
        )
    return _text(path, head) or "of a kind that is not known here, or damaged"


def is_safetensors(path: Path) -> bool:
    """Return whether a file is one of safetensors: by its content, or where it is too short for that, its name."""
    with open(path, "rb") as file:
        head = file.read(9)
        size = file.seek(0, 2)
    length = int.from_bytes(head[:8], "little")
    return path.suffix == ".safetensors" or (head[8:9] == b"{" and 2 <= length <= size - 8)


def folder(path: Path) -> str:
    """Return what a folder without a run's best.pt has, and what to do."""
    names = sorted(file.name for file in path.iterdir())
    indices = [name for name in names if name.endswith(".index.json")]
    if indices:
        return f"a folder of weights in several files ({indices[0]}): {_JOIN}"
    files = [name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pth.tar"))]
    if files:
        return f"a folder, not one of a run (it has no best.pt): give the file, for instance {path / files[0]}"
    if "saved_model.pb" in names:
        return "a saved model of TensorFlow, not one of PyTorch"
    if "data.pkl" in names:
        return "the unpacked archive of a file: give the file itself"
    return "a folder without a best.pt: give a run's folder, or a file"


_JOIN = (
    "load the model with its own library, and save its state_dict in one file (`torch.save(model.state_dict(),"
    " 'weights.pth')`)"
)


def _archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except Exception:  # cut short: torch's own error says it
        return None
    if "constants.pkl" in names:
        return (
            "a TorchScript archive, which is code: where you trust it,"
            f" `torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')` takes its weights"
        )
    if "data.pkl" in names:
        return None
    if "model.weights.h5" in names:
        return "a model of Keras, not one of PyTorch"
    if names and all(name.endswith(".npy") for name in names):
        return _NPZ
    return "a zip archive, not one that torch.save wrote"


def _text(path: Path, head: bytes) -> str | None:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else the last character is only cut
            return None
        text = head[: error.start].decode("utf-8")
    if any(ord(character) < 32 and character not in "\t\r\n\f" for character in text):
        return None
    lowered = text.lstrip("\ufeff \t\r\n").lower()
    found = next((said for beginning, said in _TEXTS if lowered.startswith(beginning)), None)
    if found is not None:
        return found
    if path.suffix in (".yaml", ".yml"):
        return "a YAML file (a configuration is given with --config)"
    if lowered.startswith(("{", "[")):
        return _json(path)
    return "a text file"


def _json(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return "a text file"
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):
        files = len(set(map(str, content["weight_map"].values())))
        return f"the index of weights in {files} files: {_JOIN}"
    return "a JSON file"
