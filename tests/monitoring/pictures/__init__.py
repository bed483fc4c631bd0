"""Pictures of the dashboards: `make pictures`."""
