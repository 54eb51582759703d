"""`spec.monitoring`: objects for Prometheus and Grafana."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import ApiModel
from .common import Labels


class ServiceMonitorSettings(ApiModel):
    """A ServiceMonitor for the Prometheus operator, which must be installed."""

    enabled: bool = False
    """Create the ServiceMonitor."""

    labels: Labels = {}
    """Labels by which Prometheus selects the ServiceMonitor."""

    interval: Annotated[str, Field(max_length=16, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$")] = "30s"
    """Time between two scrapes, such as 30s or 1m."""


class Alerts(ApiModel):
    """A PrometheusRule for the Prometheus operator, which must be installed."""

    enabled: bool = False
    """Create the PrometheusRule."""

    labels: Labels = {}
    """Labels by which Prometheus selects the PrometheusRule."""


class Dashboard(ApiModel):
    """A ConfigMap with a Grafana dashboard, for Grafana's dashboard sidecar."""

    enabled: bool = False
    """Create the ConfigMap."""

    labels: Labels = {"grafana_dashboard": "1"}
    """Labels by which the sidecar selects the ConfigMap."""


class Monitoring(ApiModel):
    """Objects for Prometheus and Grafana."""

    service_monitor: ServiceMonitorSettings = ServiceMonitorSettings()
    """Scrape the runtime's metrics."""

    alerts: Alerts = Alerts()
    """Alert on what users would notice."""

    dashboard: Dashboard = Dashboard()
    """Show what the runtime does."""
