"""The broker: the nats-server that a process brings along, and connections to one."""
