"""A checkpoint from a stranger is data: what its file may hold before torch loads it, and what it must hold after.

Nothing here calls what a file names or allocates what a file declares.
"""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

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
_OVERHEAD = 1024  # bytes of a member at most, beside its content and name: headers, and padding to multiples of 64
_MAX_NESTING = 20_000  # Python's hash of a tuple in a tuple in a tuple knows no limit but the stack's
_MAX_DEPTH = 100
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


def check_length(file: IO[bytes], length: int) -> None:
    """Refuses a file of that length which the members of an archive do not fill, without reading it.

    Raises:
        ValueError: with both lengths; or BadZipFile.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    held = sum(member.compress_size + len(member.filename) for member in members)
    if length > held + _OVERHEAD * (len(members) + 1):
        raise ValueError(f"it has {length:,} bytes, and {held:,} of them in use")


def check_content(checkpoint: Any, path: Path) -> None:
    """Refuses a checkpoint that lacks what a run saves, or has another kind of thing in its place.

    Args:
        checkpoint: plain data, loaded.
        path: of its file, for messages.

    Raises:
        ConfigError: with what is missing.
    """
    _check_extent(checkpoint, path)
    own = checkpoint.get("scorepath")
    kinds: list[tuple[Any, str, type]] = [(checkpoint, name, dict) for name in ("scorepath", "state_dict", "callbacks")]
    kinds += [(own, "config", dict), *((own, name, int) for name in ("format", *_COUNTERS))]
    for node, name, kind in kinds:
        found = node.get(name) if isinstance(node, dict) else None
        is_kind = isinstance(found, kind) and not isinstance(found, bool)
        if not is_kind or (isinstance(found, int) and not 0 <= found < 2**63):
            raise _no_checkpoint(path, f"its {name} is {found!r:.40}")
    if any(isinstance(found, Tensor) for _, found in _walk(own)):
        raise _no_checkpoint(path, "its config has a tensor")
    for name in (*checkpoint["state_dict"], *checkpoint["callbacks"]):
        if not isinstance(name, str):
            raise _no_checkpoint(path, f"it has the key {name!r:.40}")
    for name, found in checkpoint["state_dict"].items():
        if not isinstance(found, Tensor):
            raise _no_checkpoint(path, f"its {name} is no tensor")


def _no_checkpoint(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} is no checkpoint of a run ({what}): choose another.")


def _check_extent(checkpoint: Any, path: Path) -> None:
    """Refuses what functions that call themselves could not follow, or would follow for ever."""
    for number, (depth, _) in enumerate(_walk(checkpoint)):
        if depth > _MAX_DEPTH or number > _MAX_PICKLE_BYTES:  # without repetition, each thing takes a byte
            raise _no_checkpoint(path, "nested too deeply, or in itself")


def _walk(content: Any) -> Iterator[tuple[int, Any]]:
    """All that is in plain data, with its depth; what is in several places as often."""
    left = [(0, content)]
    while left:
        depth, node = left.pop()
        yield depth, node
        children: Any = node if isinstance(node, list | tuple) else ()
        if isinstance(node, dict):
            children = (*node.keys(), *node.values())
        left += [(depth + 1, child) for child in children]


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
    """Reads a stream with inert substitutes for the three kinds of names that plain data has, and measures tensors.

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
