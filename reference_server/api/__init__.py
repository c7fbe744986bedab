"""The HTTP port: logins, lists, health, metrics, the page."""
