"""The SDK: one client, two transports. Embedded works in this process, HTTP on a server; the methods are the same."""
