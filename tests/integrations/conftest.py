from tests.integrations.web import web

__all__ = ["web"]
