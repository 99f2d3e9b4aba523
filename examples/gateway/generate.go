package main

// Package greeterpb is generated from proto/, by programs that are built from source in the versions given here and in
// buf.gen.yaml. It does not need protoc. third_party/ has the files of googleapis that define the annotations.
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
