"""The simulated engine: the gateway's own detectors over modelled clients, network and store."""
