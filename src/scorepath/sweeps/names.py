"""How the jobs of a sweep are named: by the overrides in which they differ, short enough for a line of a table."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from scorepath.run.changes import OF_THE_COMMAND

_LONGEST = 120  # bytes of a name; file systems take 255, and a terminal's line has hardly more
_NARROWEST = 8  # letters of a part that still say something
_UNSAFE = re.compile(r"[^\w.+-]+")  # = and comma too: both would need quotes on a command line


def key_of(override: str) -> str:
    """The key or group that an override is of."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def quoted(value: str) -> str:
    """Text as it stands in an override: other than plain letters in Hydra's quotes."""
    return value if re.fullmatch(r"[\w./+-]+", value) else "'" + value.replace("'", "\\'") + "'"


def identity(overrides: Iterable[str]) -> str:
    """Equal for jobs of the same overrides in any order."""
    return hashlib.sha256("\n".join(sorted(overrides)).encode(errors="surrogatepass")).hexdigest()[:16]


def name_jobs(
    jobs: Sequence[Sequence[str]], swept: Iterable[str], known: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Names the jobs of a sweep by the overrides in which they differ from each other and from those in its folder.

    A job is its overrides: one that has a folder already keeps it, whatever else is swept by now.

    Args:
        jobs: the overrides of each.
        swept: keys that have several values, or may have.
        known: name of a job that has a folder -> its overrides.

    Returns:
        One name for each of `jobs`, equal only for equal ones.
    """
    known = known or {}
    sets = [set(job) for job in (*jobs, *known.values())]
    common = set.intersection(*sets) if sets else set()
    varying = {*swept, *(key_of(text) for job in sets for text in job - common)}
    short = shortest_endings({key_of(text) for job in sets for text in job})
    names = {identity(job): name for name, job in known.items()}
    new = {identity(job): _name(job, varying, short) for job in jobs if identity(job) not in names}
    taken = Counter([*known, *new.values()])
    names |= {key: name if taken[name] == 1 else f"{name}_{key[:8]}" for key, name in new.items()}
    return [names[identity(job)] for job in jobs]


def name_settings(jobs: Iterable[Sequence[str]]) -> list[str]:
    """Names what each of these jobs is but for its seed, as its folder would be named without one.

    Args:
        jobs: the overrides of each.

    Returns:
        One name for each of `jobs`, equal only for those of one setting.
    """
    return name_jobs([[text for text in job if key_of(text) not in ("seed", *OF_THE_COMMAND)] for job in jobs], ())


def shortest_endings(keys: Iterable[str]) -> dict[str, str]:
    """Each key and the shortest ending of it that no other one has: `lr` for `optimizer.lr`."""
    endings = {key: [key.split(".", dots)[-1] for dots in range(key.count("."), -1, -1)] for key in set(keys)}
    count = Counter(ending for own in endings.values() for ending in own)
    return {key: next((ending for ending in own if count[ending] == 1), key) for key, own in endings.items()}


def _name(overrides: Sequence[str], varying: Iterable[str], short: Mapping[str, str]) -> str:
    """The overrides of the varying keys, or all if there are none; cut and hashed if too long."""
    chosen = [text for text in sorted(overrides) if key_of(text) in varying] or sorted(overrides)
    parts = [text.lstrip("+").replace(key_of(text), short[key_of(text)], 1) for text in chosen]
    return shorten([_UNSAFE.sub("-", part).strip("-") for part in parts], "_") or "defaults"


def shorten(parts: Sequence[str], separator: str) -> str:
    """The parts joined; if that is too long, the middles of the longest left out and a hash of all added."""
    whole = separator.join(parts)
    if len(whole.encode()) <= _LONGEST:
        return whole
    ending = f"{separator}{identity(parts)[:8]}"
    width = max(map(len, parts))
    while len((text := separator.join(_cut(part, width) for part in parts) + ending).encode()) > _LONGEST:
        if width == _NARROWEST:
            return text.encode()[: _LONGEST - len(ending)].decode(errors="ignore") + ending
        width -= 1
    return text


def _cut(part: str, width: int) -> str:
    head = (width - 3) // 2
    return part if len(part) <= width else f"{part[:head]}...{part[head + 3 - width :]}"
