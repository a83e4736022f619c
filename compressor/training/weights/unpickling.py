"""The content of a file that `torch.save` wrote, whoever wrote it: no code that the file names is imported or called.

It is read by torch's weights-only unpickler. A class that is named beside the tensors is never looked up: where it is
one of `STAND_INS`, an object without any behaviour takes its place; any other one is refused by name.
"""

import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from compressor.errors import UserError

MAPPINGS = (
    "addict.addict.Dict",
    "collections.defaultdict",
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)
"""Dictionaries with a class of their own: read as plain ones."""

LISTS = ("collections.deque",)
"""Lists with a class of their own: read as plain ones."""

STAND_INS = (
    *MAPPINGS,
    *LISTS,
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "datetime.*",
    "distiller.*",
    "functools.partial",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy._core.multiarray.*",
    "numpy.core.multiarray.*",
    "numpy.dtype",
    "numpy.dtypes.*",
    "numpy.ndarray",
    "omegaconf.*",
    "pathlib.*",
    "torch.nn.modules.*",
    "torch.optim.*",
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
    "typing.Any",
)
"""The classes in whose place something without behaviour is read, by full name; `*` stands for any rest of a name."""

_COMMANDS = ("builtins", "importlib", "nt", "os", "posix", "runpy", "shutil", "socket", "subprocess", "sys")
"""Modules whose functions are named only by files that were made to do harm; nobody is told how to load these."""

_PICKLES_BEFORE = 3
"""In a file of torch before 1.6: the pickles (magic number, protocol, byte order) before that of the content."""

_WORKS_ON = 2**25
"""The number of operations of a pickle up to which the names in it are looked for."""


class StandIn:
    """Takes the place of an object whose class is not imported: it takes any arguments and state, and does nothing."""

    name = ""
    """The full name of the class in the file."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return one that remembers the arguments."""
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Mapping(StandIn):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _List(StandIn):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


def unpickle(path: Path) -> Any:
    """Return the content of a file: tensors on the CPU, plain values, and a `StandIn` for each object of `STAND_INS`.

    Raises `UserError` where the file names another class, and where it is damaged.
    """
    try:
        with open(path, "rb") as file:
            _check_size(file)
            names = set(_names(file))
            known = {name for name in names if _is_listed(name)}
            try:
                return _load(file, known)
            except Exception as error:
                refused = _refused(path, file, names, known, str(error))
                if refused is None:
                    raise
    except UserError:
        raise
    except Exception as error:  # torn zip, cut pickle, wrong sizes: a dozen different types
        raise UserError(f"{path}: damaged, or cut short ({_short(error)})") from None
    raise UserError(refused)


def _is_listed(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in STAND_INS)


def _stand_in(name: str) -> type[StandIn]:
    base = _Mapping if name in MAPPINGS else _List if name in LISTS else StandIn
    return type("StandIn", (base,), {"name": name})


def _load(file: BinaryIO, names: set[str]) -> Any:
    """Return the content with stand-ins for `names`; what other code has declared safe for torch does not count."""
    file.seek(0)
    safe = torch.serialization.safe_globals([(_stand_in(name), name) for name in names])
    with warnings.catch_warnings(), _nothing_else_safe(), safe:
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def _nothing_else_safe() -> Iterator[None]:
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(before)


def _check_size(file: BinaryIO) -> None:
    """Raise `UserError` where the records of a zip file are larger than the file: torch does not compress any."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        held, size = sum(record.file_size for record in archive.infolist()), file.seek(0, 2)
    if held > size:
        raise UserError(f"{file.name}: its records would take {held:,} bytes, the file has {size:,}: not read")


def _names(file: BinaryIO) -> Iterator[str]:
    """Yield the full names of all classes and functions that the pickle of a file names; nothing is executed."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from _named_in(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
        return
    file.seek(0)
    if file.read(2) == b"PK":
        raise ValueError("its end is missing")
    file.seek(0)
    for _ in range(_PICKLES_BEFORE + 1):
        yield from _named_in(file)


def _named_in(pickle: bytes | BinaryIO) -> Iterator[str]:
    for operations, (operation, argument, _) in enumerate(pickletools.genops(pickle)):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
            yield f"{module}.{name}"
        if operations > _WORKS_ON:
            raise ValueError("too many operations")


def _refused(path: Path, file: BinaryIO, names: set[str], known: set[str], said: str) -> str | None:
    """Return why torch does not read a file, where that is because of a class; `said`: torch's own words."""
    first = re.search(
        r"GLOBAL (\S+) was not an allowed|GLOBAL (\S+) whose module|`*(\S+?)`* must be imported to load", said
    )
    if first is None and "persistent_load of storage" not in said:
        return _protocol(path, said)
    name = "" if first is None else next(group for group in first.groups() if group)
    name = next((other for other in sorted(names - known) if other.endswith(f".{name}")), name)
    if name.partition(".")[0] in _COMMANDS:
        return (
            f"{path}: it names {name}, which no weights need: by such names a file runs commands. It was not loaded; do"
            f" not load it with anything else"
        )
    content = _with_stand_ins_only(file, names)
    weights = _weights(content)
    if first is None or (weights is None and any(one.startswith("torch.nn.modules.") for one in names)):
        return whole_module(content, path) or _refusal(path, "a whole pickled module", ".state_dict()")
    if module := whole_module(content, path):
        return module
    lines = "; ".join(_conversion(path, weights or ""))
    return (
        f"{path}: it names {name}, which is not one of the classes that are read without being imported: not loaded."
        f" Where you trust the file, save its weights alone, where that class is installed: {lines}"
    )


def whole_module(content: Any, path: Path) -> str | None:
    """Return why a pickled module is refused, with the three lines of Python that save its weights alone; None where a
    content is none, and has none beside no weights.
    """
    for key, value in _reached(content).items():
        if isinstance(value, StandIn) and isinstance(value.state, dict) and "_modules" in value.state:
            return _refusal(path, f"a whole pickled module ({value.name})", f"{key}.state_dict()")
        if _has_tensors(value):
            break
    return None


def _refusal(path: Path, what: str, weights: str) -> str:
    lines = "\n  ".join(_conversion(path, weights))
    return (
        f"{path}: {what}, not weights: to load it would run code that the file names. Where you trust the file, and"
        f" where that code is installed, these lines turn it into weights:\n  {lines}"
    )


def _conversion(path: Path, weights: str) -> tuple[str, str, str]:
    """Return lines of Python that save the weights of a file alone."""
    target = str(path.with_name(f"{path.name.split('.')[0]}.weights.pth"))
    load = f"loaded = torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    return "import torch", load, f"torch.save(loaded{weights}, {target!r})"


def _with_stand_ins_only(file: BinaryIO, names: set[str]) -> Any:
    """Return the content with stand-ins for all classes, only to word why it is refused; None where that fails."""
    own = ("torch._", "torch.storage.", "collections.")
    try:
        return _load(file, {name for name in names if not name.startswith(own)})
    except Exception:
        return None


def _weights(content: Any) -> str | None:
    """Return how Python reaches the tensors of a content."""
    return next((key for key, value in _reached(content).items() if _has_tensors(value)), None)


def _reached(content: Any) -> dict[str, Any]:
    """Return a content and its entries, by what Python writes for each."""
    inner = dict.items(content) if isinstance(content, dict) else ()
    return {"": content, **{f"[{key!r}]": value for key, value in inner}}


def _has_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(each, Tensor) for each in dict.values(value))


def _protocol(path: Path, said: str) -> str | None:
    """Return what to do about a pickle protocol that torch does not read."""
    if "Unsupported operand" not in said:
        return None
    return (
        f"{path}: written with a pickle protocol that is not read safely: save it again, where you trust it, with"
        f" `torch.save(..., pickle_protocol=2)`, which is torch's default"
    )


def _short(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return first[:100] or type(error).__name__
