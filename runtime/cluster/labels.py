"""The labels that tell what an object belongs to, and who refers to it, under Knative's names."""

from __future__ import annotations

from typing import Final

SERVICE_LABEL: Final = "serving.knative.dev/service"
SERVICE_UID_LABEL: Final = "serving.knative.dev/serviceUID"
CONFIGURATION_LABEL: Final = "serving.knative.dev/configuration"
CONFIGURATION_UID_LABEL: Final = "serving.knative.dev/configurationUID"
GENERATION_LABEL: Final = "serving.knative.dev/configurationGeneration"
REVISION_LABEL: Final = "serving.knative.dev/revision"

ROUTES_ANNOTATION: Final = "serving.knative.dev/routes"
"""Names of the routes that refer to a revision or a configuration, with commas between."""
