"""What the emitter and the sidecar cost, each against something real in the same run: `make bench`."""
