"""docs/ci.md: its files for GitHub Actions and GitLab are YAML of that kind, and their commands exist."""

import shlex
from typing import Any

import yaml
from test_docs import PAGES, blocks, check


def files() -> list[dict[Any, Any]]:
    """The YAML of the page: GitHub's file, then GitLab's."""
    return [yaml.safe_load(text) for page, text in blocks("yaml") if page == "docs/ci.md"]


def lines_of(texts: list[str]) -> list[list[str]]:
    """Each command of some scripts, in words."""
    return [shlex.split(line) for text in texts for line in text.splitlines()]


def test_the_file_for_github_actions_has_steps_whose_commands_exist() -> None:
    github, _ = files()
    assert set(github) == {"name", True, "jobs"}  # YAML reads `on` as true
    [job] = github["jobs"].values()
    assert job["runs-on"]
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    scripts = lines_of([step["run"] for step in job["steps"] if "run" in step])
    assert [words[0] for words in scripts] == ["pip", "compress"]
    check(scripts[1])
    written = [step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert scripts[1][-1] in written[0].split()


def test_the_file_for_gitlab_has_a_job_whose_commands_exist() -> None:
    _, gitlab = files()
    [stage] = gitlab.pop("stages")
    [job] = gitlab.values()
    assert job["stage"] == stage
    scripts = lines_of(job["script"])
    assert [words[0] for words in scripts] == ["pip", "compress"]
    check(scripts[1])
    assert job["artifacts"]["reports"]["junit"] == scripts[1][-1]


def test_a_newcomer_finds_the_page() -> None:
    assert "(docs/ci.md)" in PAGES["README.md"]
