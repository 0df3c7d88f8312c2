"""A checkpoint from a stranger is data: what its file may hold before torch loads it, and what it must hold after.

Nothing here calls what a file names or allocates what a file declares.
"""

import io
import pickle
import pickletools
import zipfile
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from scorepath.errors import ConfigError

# The pickle operations that torch.save writes for dicts, lists, numbers, strings and tensors
_OPERATIONS = {
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND"),
    *("APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BUILD"),
    "BINPERSID",
}
_ENTRY_BYTES = {  # of torch's storages
    **{"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8},
    **{"IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1},
}
_MAX_DIMENSIONS = 8
_MAX_PICKLE_BYTES = 1 << 20  # without the tensors' entries; a checkpoint of four tensors has 5 KB
_MAX_NESTING = 20_000  # Python's hash of a tuple in a tuple in a tuple knows no limit but the stack's
_COUNTERS = ("seed", "update_index", "env_steps", "episodes")


def check_archive(data: bytes) -> None:
    """Refuses a checkpoint that is not plain data, or that declares more than it holds, without loading it.

    `torch.load(weights_only=True)` runs no code of a file, but it calls `bytearray` and constructors of tensors with a
    file's numbers, unpacks what is compressed, and expands what is small.

    Args:
        data: what `torch.save` wrote.

    Raises:
        ValueError: with what was found; or whatever reading a damaged archive or pickle raises.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = _check_members(archive, len(data))
        pickles = [name for name in sizes if name.endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].endswith("/data.pkl"):
            raise ValueError(f"it has the pickles {pickles}, and torch.save writes one, data.pkl")
        content = archive.read(pickles[0])
    if len(content) > _MAX_PICKLE_BYTES:
        raise ValueError(f"its pickle has {len(content):,} bytes beside the tensors' entries, which no run writes")
    _check_operations(content)
    folder = pickles[0].removesuffix(".pkl") + "/"
    records = {name.removeprefix(folder): size for name, size in sizes.items() if name.startswith(folder)}
    _PlainUnpickler(content, records).load()


def check_content(checkpoint: Any, path: Path) -> None:
    """Refuses a checkpoint that lacks what a run saves, or has another kind of thing in its place.

    Args:
        checkpoint: plain data, loaded.
        path: of its file, for messages.

    Raises:
        ConfigError: with what is missing.
    """
    own = checkpoint.get("scorepath")
    kinds: list[tuple[Any, str, type]] = [(checkpoint, name, dict) for name in ("scorepath", "state_dict", "callbacks")]
    kinds += [(own, "config", dict), *((own, name, int) for name in _COUNTERS)]
    for node, name, kind in kinds:
        found = node.get(name) if isinstance(node, dict) else None
        if not isinstance(found, kind) or (isinstance(found, int) and found < 0):
            raise ConfigError(f"{path} is no checkpoint of a run (its {name} is {found!r:.40}): choose another.")
    for name, found in checkpoint["state_dict"].items():
        if not isinstance(found, Tensor):
            raise ConfigError(f"{path} is no checkpoint of a run (its {name} is no tensor): choose another.")


def _check_members(archive: zipfile.ZipFile, length: int) -> dict[str, int]:
    """Name -> size of an archive's members, which must be stored as they are, once each, and fit into the file."""
    sizes: dict[str, int] = {}
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"its member {member.filename} is compressed, and may unpack to any size")
        if member.filename in sizes:
            raise ValueError(f"its member {member.filename} is there twice")
        sizes[member.filename] = member.file_size
    if sum(sizes.values()) > length:
        raise ValueError(f"its members declare {sum(sizes.values()):,} bytes, and the file has {length:,}")
    return sizes


def _check_operations(content: bytes) -> None:
    """Reads the stream's operations without carrying them out."""
    tuples = 0
    for operation, argument, _ in pickletools.genops(content):
        if operation.name not in _OPERATIONS:
            raise ValueError(f"its pickle has the operation {operation.name}, which plain data does not need")
        if operation.name == "LONG_BINPUT" and int(argument or 0) > len(content):
            raise ValueError("its pickle asks for more memory than it can use")
        tuples += operation.name.startswith("TUPLE")
    if tuples > _MAX_NESTING:
        raise ValueError(f"its pickle has {tuples:,} tuples, as if it were made to exhaust the stack")


class _PlainUnpickler(pickle.Unpickler):
    """Reads a stream with inert stand-ins for the three kinds of names that plain data has, and measures tensors.

    Args:
        content: the stream.
        records: key -> bytes of the archive's storages.
    """

    def __init__(self, content: bytes, records: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self._records = records

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return type("Entries", (dict,), {})  # a new one each time, for a stream can write into it
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _check_tensor(*arguments)
        if module == "torch" and name in _ENTRY_BYTES:
            return name  # a string cannot be called
        raise ValueError(f"it names {module}.{name}, which plain data does not need")

    def persistent_load(self, pid: Any) -> int:
        """The number of entries of a storage."""
        _, kind, key, _, entries = pid
        needed, there = entries * _ENTRY_BYTES[kind], self._records.get(key, 0)
        if type(entries) is not int or needed != there:
            raise ValueError(f"its tensor {key} declares {needed:,} bytes, and the file has {there:,} of it")
        return entries


def _check_tensor(entries: int, offset: int, size: tuple, stride: tuple, grad: bool, hooks: dict) -> None:
    """Refuses a view that reaches beyond its storage or repeats entries of it: a copy would have any size."""
    numbers = [entries, offset, *size, *stride]
    if len(size) > _MAX_DIMENSIONS or len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"it has a tensor of size {size} and stride {stride}, which is none")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if prod(size) > entries or (prod(size) > 0 and last >= entries):
        raise ValueError(f"it has a tensor of {prod(size):,} entries over a storage of {entries:,}")
