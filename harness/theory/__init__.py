"""Theory: closed forms of detection latency, false suspicion and cost, and a scenario's predictions.

Pure: from policies, networks and scenarios to laws and numbers; nothing here samples, runs or opens files.
"""
