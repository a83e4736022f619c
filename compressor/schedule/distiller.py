"""What a schedule of Distiller (commit d859fc85, its last) may name that has no part here.

N. Zmora et al., "Neural Network Distiller", arXiv 1910.12232, 2019.
"""

QUANTIZERS = (
    "PostTrainLinearQuantizer",
    "QuantAwareTrainRangeLinearQuantizer",
    "NCFQuantAwareTrainQuantizer",
    "DorefaQuantizer",
    "PACTQuantizer",
    "WRPNQuantizer",
)
"""Its quantizer classes: known by name, and not built yet."""

_EVERYWHERE = {"verbose", "arch", "dataset", "remove_channels", "name"}
_OF_SECTION = {
    "regularizers": {"keep_mask"},
    "lr_schedulers": {"last_epoch"},
    "extensions": {"layer_names"},
}


def meaningless(section: str | None) -> set[str]:
    """Return the keys that mean nothing here in the components of a section, or in the `args` of a policy (None).

    Distiller took them: `name` and `last_epoch` it replaced by its own values, `arch`, `dataset` and `layer_names` said
    which network is thinned, `verbose` was for the terminal. A version 1 schedule may have them, with a warning.
    """
    return _EVERYWHERE if section is None else _EVERYWHERE | _OF_SECTION.get(section, set())
