"""What `compress verify` found as JUnit XML, which CI systems show."""

import re
from pathlib import Path
from xml.etree import ElementTree

from compressor.experiment.verification_text import NAMES, facts, of_figure, of_smoke
from compressor.experiment.verifying import Verification, Verified
from compressor.files import replace

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot have."""


def write(path: Path, found: Verification) -> None:
    """Write a test suite for each schedule, with a case for its smoke digest and for each claimed figure."""
    root = ElementTree.Element("testsuites", name="compress verify")
    for one in found.schedules:
        _suite(root, one)
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, 0)) for suite in root)))
    ElementTree.indent(root)
    tree = ElementTree.ElementTree(root)
    replace(path, lambda file: tree.write(file, encoding="utf-8", xml_declaration=True))


def _suite(root: ElementTree.Element, one: Verified) -> None:
    seconds = sum(run.seconds for run in one.runs)
    suite = ElementTree.SubElement(root, "testsuite", name=_clean(one.schedule), time=f"{seconds:.1f}")
    if one.smoke is not None:
        case = _case(suite, one, "smoke digest")
        if one.smoke.result == "differs":
            _add(case, "failure", f"{one.schedule}: {of_smoke(one.smoke)}", one)
        if one.smoke.result == "not compared":
            ElementTree.SubElement(case, "skipped", message=_clean(of_smoke(one.smoke)))
    for figure in one.figures:
        claimed, reached = of_figure(figure, one)
        case = _case(suite, one, NAMES[figure.figure])
        if not figure.holds:
            _add(case, "failure", f"{one.schedule}: {NAMES[figure.figure]}: claimed {claimed}, reached {reached}", one)
    if one.error is not None:
        _add(_case(suite, one, "runs"), "error", f"{one.schedule}: {one.error.splitlines()[0]}", one)
    counts = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(suite)))
    for name, tag in counts.items():
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))


def _case(suite: ElementTree.Element, one: Verified, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=_clean(one.schedule), name=f"{_clean(one.schedule)}: {name}"
    )


def _add(case: ElementTree.Element, tag: str, message: str, one: Verified) -> None:
    ElementTree.SubElement(case, tag, message=_clean(message)).text = _clean("\n".join(facts(one)))


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
