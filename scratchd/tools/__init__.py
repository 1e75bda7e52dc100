"""What operators run beside the service: one module a tool. They know neither `service` nor `http`."""
