""".ci/extras, on a small project and an index of two wheels in a folder."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT, environment

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason=".ci/extras reads TOML with Python 3.11's tomllib")


def wheel(folder, name, version, *requires):
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        info = f"{name}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def check(folder, extras, constraints):
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "extras", folder / ".ci")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "lab"\nversion = "1"\n[project.optional-dependencies]\n{extras}\n[tool.setuptools]\n'
        "py-modules = []\n"
    )
    (folder / "constraints.txt").write_text(constraints)
    wheel(folder, "scpath_one", "1.0+cpu")
    wheel(folder, "scpath_two", "2.0", "scpath_one<2")
    # without an index or a fresh setuptools: pip reads these variables; 0 is its word for no isolation
    pip = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    command = [sys.executable, str(folder / ".ci" / "extras")]
    return subprocess.run(command, env=environment(**pip), capture_output=True, text=True, check=False)


def test_quiet_where_all_extras_resolve(tmp_path):
    """A local build, 1.0+cpu, is 1.0."""
    done = check(tmp_path, 'a = ["scpath_one"]\nb = ["scpath_two"]', "scpath-one==1.0\nscpath_two==2.0\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_package_without_a_pin_is_named(tmp_path):
    done = check(tmp_path, 'b = ["scpath_two"]', "scpath_two==2.0\n")
    assert done.returncode == 1
    assert "add scpath_one==1.0+cpu" in done.stderr


def test_the_extra_that_does_not_resolve_is_named(tmp_path):
    done = check(tmp_path, 'a = ["scpath_one>=1"]\nb = ["scpath_two>2"]', "scpath_one==1.0\nscpath_two==2.0\n")
    assert done.returncode == 1
    assert "extras: [b] cannot be installed with constraints.txt" in done.stderr
    assert "[a]" not in done.stderr
