"""The labels that tell what an object belongs to, under Knative's names."""

from __future__ import annotations

from typing import Final

SERVICE_LABEL: Final = "serving.knative.dev/service"
SERVICE_UID_LABEL: Final = "serving.knative.dev/serviceUID"
CONFIGURATION_LABEL: Final = "serving.knative.dev/configuration"
CONFIGURATION_UID_LABEL: Final = "serving.knative.dev/configurationUID"
GENERATION_LABEL: Final = "serving.knative.dev/configurationGeneration"
REVISION_LABEL: Final = "serving.knative.dev/revision"
