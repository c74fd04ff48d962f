"""The event log: envelope, publish/subscribe, delivery, dead letters, replay. It is also the webhook queue."""
