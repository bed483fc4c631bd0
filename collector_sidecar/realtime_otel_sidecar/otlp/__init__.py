"""The edges: everything that knows protobuf or gRPC."""
