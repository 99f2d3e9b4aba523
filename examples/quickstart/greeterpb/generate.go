// Package greeterpb is the protobuf API of the quickstart's greeter.
//
// The code is generated with protoc-gen-go v1.36.12 and protoc-gen-go-grpc v1.6.2.
package greeterpb

// The path starts at the module's root, since all files of a program need different ones.
//go:generate protoc --proto_path=../../.. --go_out=../../.. --go_opt=paths=source_relative --go-grpc_out=../../.. --go-grpc_opt=paths=source_relative examples/quickstart/greeterpb/greeter.proto
