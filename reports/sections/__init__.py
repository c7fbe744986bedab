"""The parts of a report, one a module: each turns tables and figures into one `Section`."""
