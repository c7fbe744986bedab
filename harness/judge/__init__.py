"""Judge decides: is the run sound, do the engines agree, do the thresholds hold."""
