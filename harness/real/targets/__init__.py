"""Servers that somebody else wrote: started, watched from outside and stopped, unchanged."""
