"""One ASGI app in front of everything: today the webhook receiver."""
