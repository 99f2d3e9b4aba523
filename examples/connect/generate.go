package main

// The packages below greeterpb are generated from proto/. All programs for it are built from source in the versions
// that are named here and in buf.gen.yaml; protoc is not needed.
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
