"""The output maps of networks by training target. Configs of models import this, so it loads no arrays."""

TARGET_MAPS: dict[str, tuple[str, ...]] = {
    "foreground_distance": ("foreground", "distance"),
    "distance": ("distance",),
    "flow": ("foreground", "flow_y", "flow_x"),
    "distance_flow": ("foreground", "flow_y", "flow_x"),
}
"""Training target, a module of `shared.targets` -> names of the output maps of a network trained on it."""


def known_target(name: str) -> str:
    """Return the name of a target; raises ValueError where there is none of this name."""
    if name not in TARGET_MAPS:
        raise ValueError(f"{name!r}: unknown target; there is {', '.join(TARGET_MAPS)}")
    return name
