"""What setup.py declares, against the tree; building and installing is up to .ci/run."""

import ast
import re
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import vissl_lite

setuptools = pytest.importorskip("setuptools")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def declared(monkeypatch):
    """The keyword arguments that setup.py gives to setuptools."""
    found = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: found.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return found


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")


def imported():
    """Top-level names of everything that the package imports."""
    for file in (ROOT / "vissl_lite").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module.partition(".")[0]


def test_version_is_the_package_s(declared):
    assert declared["version"] == vissl_lite.__version__


def test_every_import_is_a_requirement_or_an_extra(declared):
    extras = [word for words in declared["extras_require"].values() for word in words]
    known = {name_of(word) for word in [*declared["install_requires"], *extras]}
    distributions = packages_distributions()
    foreign = set(imported()) - set(sys.stdlib_module_names) - {"vissl_lite"}
    unknown = {
        module
        for module in foreign
        if not {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        & known
    }
    assert not unknown


def test_every_package_is_in_the_wheel(declared):
    folders = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in (ROOT / "vissl_lite").rglob("*.py")
    }
    assert folders == set(declared["packages"]) - {"vissl_lite.configs"}


def test_every_recipe_is_in_the_wheel(declared):
    source = ROOT / declared["package_dir"]["vissl_lite.configs"]
    packed = {
        file
        for pattern in declared["package_data"]["vissl_lite.configs"]
        for file in source.glob(pattern)
    }
    assert packed == {file for file in source.rglob("*") if file.is_file()}


def test_console_script_exists(declared):
    (script,) = declared["entry_points"]["console_scripts"]
    name, _, target = script.partition(" = ")
    module, _, function = target.partition(":")
    assert name == "vissl-lite"
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_ci_runs_the_two_commands_of_the_readme():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    install, test = (block.splitlines()[0] for block in blocks[:2])
    assert install.startswith("python3 -m venv")
    assert install.endswith("vissl-lite config=quickstart")
    assert test.startswith("python3 -m venv")
    assert test.endswith("pytest -n 2 --dist loadfile")
    script = (ROOT / ".ci" / "run").read_text()
    (reads,) = re.findall(r"^mapfile .*$", script, re.MULTILINE)
    shell = ["bash", "-c", reads + """; printf '%s\\n' "${readme[@]}" """]
    found = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [install, test]
