"""Pure detectors, shared with the model: time is an argument, no clock, no socket, no event loop."""
