"""Data funnel: items left and lost after each step of a table's making."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step of a funnel."""

    label: str
    detail: str
    """Condition of the step, or ""."""
    left: int
    """Items after the step."""
    lost: int
    """Items that the step removes; 0 for a first step."""
    breaks: int | None = None
    """Of a policy rule: clips that break it, including clips that an earlier rule has dropped."""


@dataclass(frozen=True)
class Funnel:
    """Steps that count the same kind of item."""

    unit: str
    """Plural name of an item."""
    steps: Sequence[Step]

    @property
    def start(self) -> int:
        """Items before the first step."""
        return self.steps[0].left


def clips_funnels(manifest: Mapping[str, Any]) -> list[Funnel]:
    """Return the funnels of a clips table: its videos, then their clips through the rules of the policy."""
    counts = manifest["counts"]
    videos = _outcome_steps(counts, "videos found", "readable", "with a clip")
    clips = [Step("clips cut", _cut(manifest["spec"]), counts["rows"], 0)]
    for rule in manifest["funnel"]:
        detail = rule["expression"] if rule["expression"] != rule["rule"] else ""
        clips.append(Step(rule["rule"], detail, rule["left"], rule["drops"], rule["breaks"]))
    return [Funnel("videos", videos), Funnel("clips", clips)]


def latents_funnels(manifest: Mapping[str, Any], num_clips: int | None) -> list[Funnel]:
    """Return the funnel of a latents table.

    Args:
        manifest: of the latents table.
        num_clips: rows of the clips table that it was made from, if known.
    """
    counts = manifest["counts"]
    steps = _outcome_steps(counts, "clips to encode", "encoded without error", "not filtered")
    if num_clips is not None and num_clips >= counts["planned"]:
        selection = manifest["clips"].get("where") or "kept by the policy of the clips table"
        steps[:1] = [
            Step("clips in the clips table", "", num_clips, 0),
            Step("selected", selection, counts["planned"], num_clips - counts["planned"]),
        ]
    return [Funnel("clips", steps)]


def _outcome_steps(counts: Mapping[str, int], found: str, succeeded: str, passed: str) -> list[Step]:
    planned, failed, filtered = (counts.get(name, 0) for name in ("planned", "failed", "filtered"))
    steps = [Step(found, "", planned, 0), Step(succeeded, "", planned - failed, failed)]
    return [*steps, Step(passed, "", planned - failed - filtered, filtered)] if filtered else steps


def _cut(spec: Mapping[str, Any]) -> str:
    text = f"{spec['num_frames']} frames at {spec['fps']:g} a second"
    if spec.get("stride_frames"):
        text += f", every {spec['stride_frames']} frames"
    return text + (", within shots" if spec.get("split_shots") else "")
