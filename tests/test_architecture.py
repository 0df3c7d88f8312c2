"""The rules of the house, read from the sources with `ast`."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "scorepath"
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))  # not in the package

# Data flows from left to right: a module imports only from modules to its left.
ORDER = ["types", "ranks", "seeding", "envs", "distributions", "policy", "rollout", "intervals", "returns", "baselines"]
ORDER += ["estimators", "update", "compatibility", "module", "callbacks", "run", "sources", "sweeps", "explain"]
ORDER += ["search", "dashboards", "build", "jobs", "cli"]
LEAVES = {"errors", "schedules", "config", "garbage", "registration"}  # importable by any
HYDRA = {"sources", "sweeps", "explain", "search", "build", "jobs", "cli"}
LIGHTNING = {"module", "callbacks", "run", "dashboards", "sources", "build", "jobs"}
# `verify` may import what it verifies, and only those who report its findings import it
VERIFY_IMPORTS, VERIFY_IMPORTED_BY = set(ORDER[: ORDER.index("compatibility")]), {"callbacks", "jobs"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def owner(path: Path) -> str:
    """The module of the house that a file belongs to; '' for the package's own __init__."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> set[str]:
    """Dotted names of all imports of a file, also those inside functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def house_imports(path: Path) -> set[str]:
    """Modules of the house that a file imports, without its own."""
    found = {name.split(".")[1] for name in imports(path) if name.startswith("scorepath.")}
    return found - {owner(path), "__version__"}


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_every_module_has_a_place_in_the_order():
    modules = {owner(path) for path in FILES} - {""}
    assert modules <= set(ORDER) | LEAVES | {"verify"}
    assert set(ORDER) <= modules


@every_file
def test_a_module_imports_only_from_its_left(path):
    own, found = owner(path), house_imports(path)
    if own in LEAVES:
        allowed = LEAVES
    elif own == "verify":
        allowed = LEAVES | VERIFY_IMPORTS
    elif own == "":
        allowed = {"registration"}  # or Gymnasium would not know our environments
    else:
        allowed = LEAVES | set(ORDER[: ORDER.index(own)])
        allowed |= {"verify"} if own in VERIFY_IMPORTED_BY else set()
    assert found <= allowed


def test_the_package_needs_nothing_that_stands_beside_it():
    """Nor do the options of conf, which go with it."""
    beside = {"benchmarks", "scripts", "tests"}
    assert BENCHMARKS
    assert not [path for path in FILES if roots(path) & beside]
    named = [re.findall(r"_target_: *(\w+)", path.read_text("utf-8")) for path in (ROOT / "conf").rglob("*.yaml")]
    assert not {name for names in named for name in names} & beside


def test_tests_of_the_core_know_neither_hydra_nor_lightning():
    """Nor commands; what they share with others is taken along."""
    shared = ("making", "cases", "tiers", "references", "counting", "processes", "two_processes", "conftest")
    files = [*(ROOT / "tests" / "core").glob("*.py"), *(ROOT / "tests" / f"{name}.py" for name in shared)]
    shell = {f"scorepath.{name}" for name in HYDRA | LIGHTNING}
    assert len(files) > 30
    for path in files:
        assert not roots(path) & {"hydra", "omegaconf", "lightning", "pytorch_lightning", "helpers"}, path
        assert not {".".join(name.split(".")[:2]) for name in imports(path)} & shell, path


def test_rollouts_know_nothing_of_returns():
    """Nor does anything before the baselines: what an episode is worth is not the rollout's business."""
    owners = {owner(path) for path in FILES if "returns" in house_imports(path)}
    assert owners == {"baselines", "estimators", "callbacks"}


@every_file
def test_hydra_is_known_only_where_things_are_put_together(path):
    assert not roots(path) & {"hydra", "omegaconf"} or owner(path) in HYDRA


@every_file
def test_lightning_is_known_only_from_the_module_on(path):
    assert not roots(path) & {"lightning", "pytorch_lightning"} or owner(path) in LIGHTNING


@pytest.mark.parametrize("path", [*FILES, *BENCHMARKS], ids=relative)
def test_files_fit_in_one_head(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300


def test_nothing_is_called_utils():
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(PACKAGE).parts}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def public_classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in parse(path).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


@every_file
def test_public_constructors_take_no_open_keywords(path):
    """A misspelt argument must not be swallowed."""
    for kind in public_classes(path):
        for node in kind.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                assert node.args.kwarg is None, kind.name


@every_file
def test_checkpoints_are_never_unpickled_blindly(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            assert isinstance(node.value, ast.Constant), "weights_only must be written out"
            assert node.value.value is True


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS, *BENCHMARKS], ids=relative)
def test_everything_public_has_a_docstring(path):
    """Modules, functions and classes; of methods those of an interface, for overrides need none."""
    tree = parse(path)
    assert ast.get_docstring(tree), path
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if isinstance(node, (*functions, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.ClassDef) and node.name.startswith("Abstract"):
            for method in node.body:
                if isinstance(method, functions) and not method.name.startswith("_") and method.name != "forward":
                    assert ast.get_docstring(method), f"{node.name}.{method.name}"


def test_classes_are_abstract_or_final():
    """What is subclassed is an interface, or an error."""
    kinds = {kind.name: kind for path in FILES for kind in public_classes(path)}
    bases = {base.id for kind in kinds.values() for base in kind.bases if isinstance(base, ast.Name)}
    subclassed = {base for base in bases if base in kinds and not base.endswith("Error")}
    assert subclassed
    assert all(base.startswith("Abstract") for base in subclassed)


def test_scripts_are_thin():
    for path in SCRIPTS:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 40
        assert {name.split(".")[1] for name in imports(path) if name.startswith("scorepath.")} <= {"cli", "jobs"}


def test_one_list_of_pythons():
    """What is promised is what is checked, from the lowest on; constraints.txt has no versions for older ones."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = [text.rpartition(" ")[2] for text in project["project"]["classifiers"] if "Python :: 3" in text]
    assert project["project"]["requires-python"] == f">={listed[0]}"
    assert project["tool"]["ruff"]["target-version"] == f"py{listed[0].replace('.', '')}"
    assert project["tool"]["mypy"]["python_version"] == listed[0]
    assert f"(Python {listed[0]} to {listed[-1]};" in (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    for job in ("test", "extras"):
        assert workflow["jobs"][job]["strategy"]["matrix"]["python"] == listed
    extremes = {
        entry["versions"]: entry["python"] for entry in workflow["jobs"]["versions"]["strategy"]["matrix"]["include"]
    }
    assert extremes == {"lowest": listed[0], "newest": listed[-1]}
