"""The files for contributors are valid and match the package."""

from __future__ import annotations

import re
import sys

import pytest
import yaml
from support.parts import ROOT, SETUP_CFG, run_well

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def test_ci_runs_on_every_python_that_the_package_names() -> None:
    """It runs the script that a contributor can run: .ci/run."""
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["test"]
    named = re.findall(r"Python :: (3\.\d+)$", SETUP_CFG["metadata"]["classifiers"], re.MULTILINE)
    assert job["strategy"]["matrix"]["python"] == named
    assert {"run": "bash .ci/run"} in job["steps"]


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.github-workflows", WORKFLOW)]
    + [("vendor.github-issue-forms", form) for form in FORMS],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_github_reads_is_valid(schema: str, file: object) -> None:
    run_well(
        *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, f"{file}"), cwd=ROOT
    )


def test_the_hooks_run_what_make_lint_runs() -> None:
    """They use the programs in .venv, with the versions of constraints.txt."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    lint = run_well("make", "--dry-run", "lint", cwd=ROOT)
    for hook in hooks["repos"][0]["hooks"]:
        program = " ".join(hook["entry"].split()[:2])
        assert program in lint or program == "make lint", hook["entry"]
