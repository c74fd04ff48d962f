"""Apache Kafka: how its brokers are reached, and what they say in our words (`integrations.kafka.connection`)."""
