"""What is wrong with a command line, in one sentence with the nearest valid name."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException

from scorepath.config import leaves, nearest
from scorepath.errors import ConfigError
from scorepath.sources import Sources


def check_text(text: str) -> None:
    """Refuses what has no place in a config or a summary, which are UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{text!a} is not UTF-8 text: give other letters, or rename the folder.") from error


def explain(error: Exception, config_name: str, arguments: list[str]) -> str:
    """One sentence with the nearest valid name, for an error of Hydra's composition."""
    text = str(error)
    try:
        sources = Sources.of_command(config_name, arguments)
    except Exception:  # the very same error, most likely
        return _in_one_line(text, arguments)
    if (missing := sources.unavailable()) is not None:
        return missing
    if isinstance(error, OverrideParseException):
        return _in_one_line(text, arguments)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        flag, options = (group, sources.options(group)) if group else ("--config-name", sources.options(""))
        near = nearest(option, options)
        hint = f"did you mean {flag}={near}? " if near else ""
        return f"{flag}={option} does not exist: {hint}Options: {', '.join(options)}."
    for override in OverridesParser.create().parse_overrides(list(sources.overrides)):
        if not sources.is_choice(override.input_line or "") or override.is_delete():
            continue
        group, options = override.key_or_group, sources.options(override.key_or_group)
        if group not in sources.chosen and not override.is_add():
            return _explain_group(group, sources)
        if not override.is_sweep_override() and not isinstance(override.value(), str | list):
            near = nearest(str(override.value()).lower(), options)
            hint = f"did you mean {group}={near}? Options: " if near else "choose one of "
            return f"{override.input_line} is no option: {hint}{', '.join(options)}."
    found = re.search(r"Could not override '([^'@]+)", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if found:
        return _explain_key(found.group(1), sources)
    return _in_one_line(text, arguments)


def _in_one_line(text: str, arguments: list[str]) -> str:
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return f"{first} (in: {' '.join(arguments)}; HYDRA_FULL_ERROR=1 shows the whole traceback)"


def _explain_group(group: str, sources: Sources) -> str:
    """One sentence about a group of another command's: what this one takes, and what it alone has to choose from."""
    chosen, elsewhere = sources.chosen, Sources.of_command("train", []).chosen
    own = [f"{name} ({', '.join(sources.options(name))})" for name in chosen if name not in elsewhere]
    groups = [name for name in chosen if name in elsewhere and name != "hydra"]
    keys = sorted({key.partition(".")[0] for key in leaves(sources.compose([]))} - set(chosen))
    return f"{sources.config_name} takes no {group}=...: it takes {', '.join([*own, *groups, *keys])}."


def _explain_key(key: str, sources: Sources) -> str:
    """One sentence about a key that is not in the config: in that of the first job that lacks it."""
    for choices in sources.sound_choices():
        names = valid_names(sources, choices)
        if key not in names:
            break
    names = names - {key}
    prefix, _, last = key.rpartition(".")
    if prefix.endswith("kwargs") and prefix in names:
        return f"{key} is a new keyword: add it with a plus, +{key}=..."
    siblings = sorted({name[len(prefix) + 1 :].split(".")[0] for name in names if name.startswith(f"{prefix}.")})
    sibling = nearest(last, siblings)
    ending = sorted((name for name in names if name.rpartition(".")[2] == last), key=len)
    near = f"{prefix}.{sibling}" if sibling else ending[0] if ending else nearest(key, names)
    hint = f"did you mean {near}?" if near else "see --help for the names."
    known = f" Keys of {prefix}: {', '.join(siblings)}." if prefix and siblings else ""
    return f"{key} is not a key of the config: {hint}{known}"


def valid_names(sources: Sources, choices: list[str]) -> set[str]:
    """Every group and dotted key of the config composed from these choices of options."""
    keys = set(leaves(sources.compose(choices)))
    parents = {key.rpartition(".")[0] for key in keys if "." in key}
    return {*sources.groups(), *keys, *parents}
