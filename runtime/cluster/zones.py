"""Where a replica stands: `REGION/ZONE/SUBZONE`, the trailing parts left out where they are not known.

A node tells it in a cluster. This machine is one node, so a revision's own template says it: one place for all of
its replicas by a label, under Istio's name or Kubernetes' names of a node's topology, or several by the annotation
`upwell.dev/zones`, among which replicas are spread evenly, so that zone-aware rules can be tried on a laptop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from upwell.runtime.cluster.interface import Manifest

ZONES_ANNOTATION: Final = "upwell.dev/zones"
"""Localities as `REGION/ZONE`, separated by commas."""
LOCALITY_LABEL: Final = "istio-locality"
"""`REGION.ZONE.SUBZONE`, since a label cannot hold a slash."""
REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"


@dataclass(frozen=True, slots=True)
class Zones:
    """The localities that replicas of one revision may have, in order; none of them when nothing is said."""

    localities: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Zones:
        """What the template of a Deployment says; the annotation holds over the labels."""
        metadata = manifest["spec"]["template"]["metadata"]
        listed = (metadata.get("annotations") or {}).get(ZONES_ANNOTATION, "")
        names = tuple(dict.fromkeys(each.strip() for each in listed.split(",") if each.strip()))
        return cls(names or _labelled(metadata.get("labels") or {}))

    def next(self, taken: Iterable[str]) -> str:
        """The locality of the next replica: the first of those that the fewest of `taken` have; empty for none."""
        counts = Counter(taken)
        return min(self.localities, key=lambda locality: counts[locality], default="")


def _labelled(labels: Mapping[str, str]) -> tuple[str, ...]:
    named = labels.get(LOCALITY_LABEL)
    if named:
        return (named.replace(".", "/"),)
    parts = [labels[label] for label in (REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL) if labels.get(label)]
    return ("/".join(parts),) if parts else ()
