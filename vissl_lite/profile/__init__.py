"""What a training step costs: time by phase, memory by part, operators; `vissl-lite bench step`."""
