"""The project's own files agree with each other."""

import itertools
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=! ]", requirement)[0].lower()


def test_forms_and_workflows_can_be_read():
    files = [
        *(ROOT / ".github").rglob("*.yml"),
        ROOT / ".pre-commit-config.yaml",
        ROOT / "mkdocs.yml",
    ]
    assert len(files) == 6
    for file in files:
        assert yaml.safe_load(file.read_text()), file


def test_torch_is_pinned_for_setting_up_but_not_in_the_metadata():
    [torch] = [line for line in PROJECT["dependencies"] if name_of(line) == "torch"]
    assert "==" not in torch
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_every_direct_requirement_has_a_version_that_is_known_to_work():
    extras = PROJECT["optional-dependencies"].values()
    requirements = list(itertools.chain(PROJECT["dependencies"], *extras))
    pinned = {name_of(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {name_of(line) for line in requirements} - {PROJECT["name"]} <= pinned
