"""The load generator: the only room that imports gevent and Locust."""
