"""Parts of the OpenTelemetry integration: names, attributes, messages, measurements."""
