package main

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

func TestMain(m *testing.M) {
	if contender.IsServer() {
		if err := contender.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		contender.CleanUp()
		os.Exit(code)
	}))
}
