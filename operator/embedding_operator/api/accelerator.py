"""`spec.accelerator`: the device each Pod gets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from .base import ApiModel, Rule
from .common import Name

ResourceName = Annotated[
    str,
    Field(
        min_length=3,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    ),
]


class AcceleratorType(StrEnum):
    """How the device is asked for."""

    EXTENDED_RESOURCE = "ExtendedResource"
    RESOURCE_CLAIM = "ResourceClaim"
    NONE = "None"


class ExtendedResource(ApiModel):
    """A resource that a device plugin advertises on nodes."""

    name: ResourceName = "nvidia.com/gpu"
    """Name of the resource, such as nvidia.com/gpu, nvidia.com/gpu.shared or nvidia.com/mig-1g.10gb."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many each Pod gets."""


class Accelerator(ApiModel):
    """The device each Pod gets. `type` says which of the other fields applies."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.extendedResource) || !has(self.type) || self.type == 'ExtendedResource'",
            message="extendedResource needs type: ExtendedResource",
            holds=lambda it: it.extended_resource is None or it.type is AcceleratorType.EXTENDED_RESOURCE,
        ),
        Rule(
            cel="has(self.resourceClaimTemplateName) == (has(self.type) && self.type == 'ResourceClaim')",
            message="type ResourceClaim and resourceClaimTemplateName need each other",
            holds=lambda it: (
                (it.resource_claim_template_name is not None) is (it.type is AcceleratorType.RESOURCE_CLAIM)
            ),
        ),
    )

    type: AcceleratorType = AcceleratorType.EXTENDED_RESOURCE
    """ExtendedResource: a device plugin's resource. ResourceClaim: dynamic resource allocation. None: CPU only."""

    extended_resource: ExtendedResource | None = None
    """Which resource and how many. Default: one nvidia.com/gpu."""

    resource_claim_template_name: Name | None = None
    """Name of the ResourceClaimTemplate from which each Pod gets its claim."""

    @property
    def effective_resource(self) -> ExtendedResource | None:
        """The extended resource each Pod asks for, or None when it asks for none."""
        if self.type is not AcceleratorType.EXTENDED_RESOURCE:
            return None
        return self.extended_resource or ExtendedResource()
