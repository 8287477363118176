"""The mechanism of CQRS and event sourcing: all that knows no order and no customer."""
