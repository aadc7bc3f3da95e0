"""The routes of the server's own page."""

from starlette.routing import BaseRoute

from pipeline.server.service import Service


def make_routes(service: Service) -> list[BaseRoute]:
    """Returns the routes of the page, which asks `service`."""
    return []
