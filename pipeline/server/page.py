"""The server's page."""

from starlette.routing import BaseRoute

from pipeline.server.service import Service


def make_routes(service: Service) -> list[BaseRoute]:
    """Makes the routes of the page."""
    return []
