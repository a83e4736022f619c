"""From a document to a schedule: its components, and its policies, which say when they act."""

from collections.abc import Mapping
from typing import Any, TypeVar

from compressor.component import Component, of_version_2
from compressor.errors import UserError, did_you_mean
from compressor.policies.policy import Policy
from compressor.schedule import claim, distiller, extending, parsing
from compressor.schedule.document import Document, KeyPath, check_keys, describe
from compressor.schedule.faults import Faults, Message, Place
from compressor.schedule.registry import SECTIONS, components, plug_in
from compressor.schedule.schedule import Entry, Meant, Schedule
from compressor.schedule.selectors import check_exclusions
from compressor.timing import Window

Model = TypeVar("Model", bound=Component)

VERSION_2 = {"config", "gates", claim.KEY, extending.KEY}
"""The keys of a schedule that need `version: 2`."""
VERSION_2_WINDOW = {key for key in Window.model_fields if "step" in key}
"""The keys of a window that need it."""
_WINDOW = set(Window.model_fields)


def read(document: Document, faults: Faults) -> Schedule:
    """Return the schedule in a document; what it does not understand becomes a fault.

    Modules named under `plugins:` are imported, that is run, where the user allows it.
    """
    schedule = Schedule(document)
    if document.data is None and faults:
        return schedule
    if not isinstance(document.data, dict):
        faults.add(document.place(()), f"a schedule should be a mapping, got {describe(document.data)}")
        return schedule
    data: dict[str, Any] = document.data
    version = data.get("version", 1)
    if version not in (1, 2) or isinstance(version, bool):
        faults.add(document.place(("version",)), f"'version' should be 1 or 2, got {describe(version)}")
        version = 2
    schedule.version = version
    for place, said in document.repeats:
        if version == 1:
            schedule.notes.append(Message(place, said, "warning"))
        else:
            faults.add(place, said)
    known = {"version", "policies", "plugins", *SECTIONS} | (VERSION_2 if version == 2 else set())
    for key in sorted(VERSION_2 & set(data) - known):
        faults.add(document.place((key,), key=True), f"{key!r} needs `version: 2`")
    check_keys(document, (), {k: v for k, v in data.items() if k not in VERSION_2}, known, faults, "the schedule")
    config = data.get("config")
    if config is not None and not isinstance(config, str):
        faults.add(document.place(("config",)), f"'config' should be a name or a path, got {describe(config)}")
    schedule.config = config if isinstance(config, str) else None
    if version == 2 and claim.KEY in data:
        schedule.claim = claim.build(document, (claim.KEY,), data[claim.KEY], faults)
    _plugins(document, data.get("plugins", []), faults)
    _Reader(schedule, faults).policies()
    return schedule


def _near_class(block: dict[str, Any]) -> list[str]:
    """Return the keys that are a misspelt `class`."""
    return [key for key in block if "'class'" in did_you_mean(key, ["class"]) and key != "class"]


def _plugins(document: Document, modules: Any, faults: Faults) -> None:
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        faults.add(document.place(("plugins",)), f"'plugins' should be a list of modules, got {describe(modules)}")
        return
    for index, module in enumerate(modules):
        try:
            plug_in(module)
        except UserError as error:
            faults.add(document.place(("plugins", index)), str(error))


class _Reader:
    def __init__(self, schedule: Schedule, faults: Faults) -> None:
        self._schedule = schedule
        self._document = schedule.document
        self._data: dict[str, Any] = schedule.document.data
        self._faults = faults
        self._used: set[tuple[str, str]] = set()
        self._not_built: dict[str, Place] = {}
        self._instances: dict[str, dict[str, Component | None]] = {}
        for section in (*SECTIONS, "gates"):
            if section in self._data:
                self._instances[section] = self._section(section)

    def _section(self, section: str) -> dict[str, Component | None]:
        block = self._data[section]
        if not isinstance(block, dict):
            place = self._document.place((section,))
            self._faults.add(place, f"{section!r} should be a mapping of names to components, got {describe(block)}")
            return {}
        if section == "regularizers" and "data" in block:
            place = self._document.place((section, "data"), key=True)
            self._faults.add(place, "'data' is the name of the data loss in metrics.jsonl: choose another name")
        return {name: self._component(section, name, value, (section, name)) for name, value in block.items()}

    def _component(
        self, section: str, name: str, block: Any, path: KeyPath, also: tuple[str, ...] = ()
    ) -> Component | None:
        """Return the component of a block with `class:`; `also` are keys that belong to the policy around it."""
        if not isinstance(block, dict):
            self._faults.add(
                self._document.place(path),
                f"{name!r} should be a mapping with a class, got {describe(block)}",
            )
            return None
        if "class" not in block:
            near = _near_class(block)
            place = self._document.place((*path, *near[:1]), key=True)
            said = (
                f"unknown key {near[0]!r} in {name!r}: did you mean 'class'?"
                if near
                else f"{name!r} needs the key 'class'"
            )
            others = [other for other in self._data.get(section) or {} if other != name]
            if place.file is None and others:  # a flag has made the block: more likely it means one that is there
                said += f"; the file has no {name!r}: {did_you_mean(name, others)}"
            self._faults.add(place, said)
            return None
        wanted = block["class"]
        cls = self._class(section, wanted, (*path, "class"))
        if cls is None:
            return None
        arguments = {key: value for key, value in block.items() if key != "class" and key not in also}
        if self._schedule.version == 1:
            given, ignored = arguments, distiller.meaningless(section)
            arguments, remark = cls.of_version_1(self._with_meaning(arguments, cls, path, ignored))
            self._meant(path, given, arguments, remark, ignored - set(cls.model_fields))
            if remark is not None:
                self._schedule.notes.append(Message(self._document.place(path), f"{name}: {remark}", "note"))
        built = parsing.build(cls, arguments, self._document, path, self._faults, what=f"{wanted} {name!r}")
        return self._checked(built, path)

    def _meant(
        self, path: KeyPath, given: Mapping[str, Any], meant: Mapping[str, Any], remark: str | None, ignored: set[str]
    ) -> None:
        """Note what version 2 writes in place of the arguments at `path`, where it is something else."""
        if given != meant:
            self._schedule.meant.append(Meant(path, given, meant, remark, frozenset(ignored)))

    def _checked(self, component: Model | None, path: KeyPath) -> Model | None:
        """Return a component, after faults for what its selectors exclude where they cannot."""
        if component is not None:
            check_exclusions(component, self._schedule.version, self._document, path, self._faults)
        return component

    def _with_meaning(
        self, arguments: dict[str, Any], cls: type[Component], path: KeyPath, ignored: set[str]
    ) -> dict[str, Any]:
        """Return the arguments without the keys of Distiller that mean nothing here; a note warns of each."""
        ignored = ignored - set(cls.model_fields)
        for key in arguments:
            if key in ignored:
                place = self._document.place((*path, key), key=True)
                said = f"{key!r} has no meaning here, it is ignored: remove it"
                self._schedule.notes.append(Message(place, said, "warning"))
        return {key: value for key, value in arguments.items() if key not in ignored}

    def _class(self, section: str, wanted: Any, path: KeyPath) -> type[Component] | None:
        place = self._document.place(path)
        if not isinstance(wanted, str):
            self._faults.add(place, f"'class' should be a name, got {describe(wanted)}")
            return None
        known = components(section)
        if wanted in known:
            return known[wanted]
        elsewhere = [other for other in (*SECTIONS, "gates") if wanted in components(other)]
        if elsewhere:
            self._faults.add(place, f"{wanted} does not belong under {section!r}, but under {elsewhere[0]!r}")
        elif wanted in distiller.QUANTIZERS and section == "quantizers":
            self._not_built.setdefault(wanted, place)
        elif wanted in distiller.QUANTIZERS:
            self._faults.add(place, f"{wanted} does not belong under {section!r}, but under 'quantizers'")
        else:
            every = [*known, *(distiller.QUANTIZERS if section == "quantizers" else ())]
            self._faults.add(place, f"no class {wanted!r} in {section!r}: {did_you_mean(wanted, every)}")
        return None

    def policies(self) -> None:
        """Read the `policies` section; of all quantizers together one fault says that they are not built."""
        self._policies()
        if self._not_built:
            names = ", ".join(self._not_built)
            self._faults.add(
                next(iter(self._not_built.values())),
                f"known from Distiller, and not built yet: {names}. All else in the file is checked; a run is not"
                f" possible before the quantizers and their policies are removed",
            )

    def _policies(self) -> None:
        block = self._data.get("policies")
        place = self._document.place(("policies",))
        if not isinstance(block, list) or not block:
            got = "nothing" if "policies" not in self._data or not block else describe(block)
            if "policies" not in self._data and any(
                "'policies'" in did_you_mean(key, ["policies"]) for key in self._data
            ):
                return  # the misspelt key is a fault already
            if "policies" not in self._data and self._not_built:
                return  # Distiller's post-training quantizers need no policy
            self._faults.add(place, f"a schedule needs 'policies', a list of one or more; got {got}")
            return
        for index, item in enumerate(block):
            self._policy(index, item)
        for section, instances in self._instances.items():
            for name in instances:
                place = self._document.place((section, name), key=True)
                extended = place.line and place.source != self._document.source  # a base is for several schedules
                if (section, name) not in self._used and not self._faults and not extended:
                    self._schedule.notes.append(Message(place, f"no policy uses {name!r} of {section!r}", "warning"))

    def _policy(self, index: int, block: Any) -> None:
        path: KeyPath = ("policies", index)
        if not isinstance(block, dict):
            self._faults.add(self._document.place(path), f"a policy should be a mapping, got {describe(block)}")
            return
        kinds = components("policies")
        known = {*kinds, "quantizer"} if "quantizer" in block else {*kinds}
        given = [key for key in block if key in known]
        check_keys(self._document, path, block, known | _WINDOW, self._faults, "a policy")
        if len(given) != 1:
            if not given and any(key not in _WINDOW for key in block):
                return  # the misspelt kind is a fault already
            got = " and ".join(given) or "none"
            self._faults.add(
                self._document.place(path),
                f"a policy needs exactly one of {', '.join(sorted(kinds))}; got {got}",
            )
            return
        times = {key: value for key, value in block.items() if key in _WINDOW}
        if self._schedule.version == 1:
            for key in sorted(VERSION_2_WINDOW & set(times)):
                self._faults.add(self._document.place((*path, key), key=True), f"{key!r} needs `version: 2`")
        window = parsing.build(Window, times, self._document, path, self._faults, what="the window")
        kind = given[0]
        if kind not in kinds:
            self._quantizer(block[kind], (*path, kind))
            return
        cls = kinds[kind]
        assert issubclass(cls, Policy)
        if cls.component is None:
            self._build(index, cls, block[kind], (*path, kind), (*path, kind), kind, window)
        else:
            self._applied(index, cls, block[kind], (*path, kind), window)

    def _quantizer(self, block: Any, path: KeyPath) -> None:
        """Check how a policy names its quantizer, by reference or inline: no quantizer is built yet."""
        if isinstance(block, dict) and "instance_name" in block and "class" not in block:
            check_keys(self._document, path, block, {"instance_name", "args"}, self._faults, "'quantizer'")
            self._reference("quantizers", block["instance_name"], (*path, "instance_name"))
        else:
            self._component("quantizers", "quantizer", block, path, also=("args",))

    def _applied(self, index: int, cls: type[Policy], block: Any, path: KeyPath, window: Window | None) -> None:
        """Add a policy that applies a component: by reference (`instance_name`), or inline (`class`)."""
        section = cls.component
        assert section is not None
        if not isinstance(block, dict):
            self._faults.add(
                self._document.place(path),
                f"{cls.name!r} should be a mapping with instance_name or class, got {describe(block)}",
            )
            return
        component: Component | None = None
        if "class" in block or ("instance_name" not in block and _near_class(block)):
            if "instance_name" in block:
                self._faults.add(
                    self._document.place((*path, "instance_name"), key=True),
                    "give instance_name or class, not both",
                )
            name, component_path = str(block.get("class")), path
            component = self._component(section, cls.name, block, path, also=("args", "instance_name"))
        else:
            check_keys(self._document, path, block, {"instance_name", "args"}, self._faults, repr(cls.name))
            if "instance_name" not in block:
                if not set(block) - {"args"}:
                    self._faults.add(self._document.place(path), f"{cls.name!r} needs instance_name or class")
                return
            name = block["instance_name"]
            component_path = (section, name)
            component = self._reference(section, name, (*path, "instance_name"))
        arguments = block.get("args")
        at = (*path, "args") if "args" in block else path
        if isinstance(arguments, dict) and "levels" in arguments and component is not None:
            component = self._with_levels(component, arguments["levels"], at)
            component_path = at
            arguments = {key: value for key, value in arguments.items() if key != "levels"}
        given = {cls.name: component} if component is not None else {}
        self._build(index, cls, {} if arguments is None else arguments, at, component_path, str(name), window, **given)

    def _of_version_2(self, cls: type[Policy], arguments: Any) -> list[str]:
        """Return the given arguments that only version 2 knows, in a schedule of version 1."""
        if self._schedule.version == 2 or not isinstance(arguments, dict):
            return []
        return [name for name in of_version_2(cls) if name in arguments]

    def _with_levels(self, component: Component, levels: Any, path: KeyPath) -> Component | None:
        """Return the pruner with the levels of Distiller's `args: {levels: ...}`, for this policy."""
        if "levels" not in type(component).model_fields:
            self._faults.add(
                self._document.place((*path, "levels"), key=True), f"{component.name} takes no 'levels' to replace"
            )
            return None
        own = component.model_dump(by_alias=True)
        built = parsing.build(
            type(component), {**own, "levels": levels}, self._document, path, self._faults, what="the args"
        )
        return self._checked(built, path)

    def _reference(self, section: str, name: Any, path: KeyPath) -> Component | None:
        instances = self._instances.get(section, {})
        if not isinstance(name, str) or name not in instances:
            hint = did_you_mean(str(name), instances)
            self._faults.add(
                self._document.place(path),
                f"no {section.removesuffix('s')} is called {describe(name)}: {hint}",
            )
            return None
        self._used.add((section, name))
        return instances[name]

    def _build(
        self,
        index: int,
        cls: type[Policy],
        arguments: Any,
        path: KeyPath,
        component_path: KeyPath,
        name: str,
        window: Window | None,
        **given: Component,
    ) -> None:
        if cls.component is not None and not given:
            return  # the component is a fault already
        defaults: dict[str, Any] = {"window": window or Window(), **given}
        written = arguments
        if self._schedule.version == 1 and isinstance(arguments, dict):
            arguments = self._with_meaning(arguments, cls, path, distiller.meaningless(None))
        if "origin" in cls.model_fields and isinstance(arguments, dict):
            arguments = {"origin": "absolute" if self._schedule.version == 1 else "start", **arguments}
        if isinstance(arguments, dict) and set(arguments) & set(defaults):
            for key in set(arguments) & set(defaults):
                self._faults.add(
                    self._document.place((*path, key), key=True),
                    f"unknown key {key!r} in the args of {cls.name!r}",
                )
            return
        for key in self._of_version_2(cls, arguments):
            self._faults.add(self._document.place((*path, key), key=True), f"{key!r} needs `version: 2`")
        if self._schedule.version == 1 and isinstance(arguments, dict):
            arguments, remark = cls.of_version_1({**arguments, **given})
            arguments = {key: value for key, value in arguments.items() if key not in given}
            if remark is not None:
                self._schedule.notes.append(Message(self._document.place(path), remark, "note"))
            if "sparsity_of" in cls.model_fields:
                arguments = {"sparsity_of": "current", **arguments}
            at = path if cls.component is None or path[-1] == "args" else (*path, "args")
            self._meant(at, written, arguments, remark, distiller.meaningless(None) - set(cls.model_fields))
        policy = parsing.build(
            cls, arguments, self._document, path, self._faults, what=f"the args of {cls.name!r}", **defaults
        )
        if cls.component is None:
            self._checked(policy, path)
        if policy is not None and window is not None:
            self._schedule.entries.append(Entry(f"{index}.{name}", policy, ("policies", index), component_path))
