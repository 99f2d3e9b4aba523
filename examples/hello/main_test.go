package main

import (
	"context"
	"log"
	"testing"

	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServe(t *testing.T) {
	var logged exampletest.Log
	log.SetOutput(&logged)
	l := exampletest.Listen(t)
	stop := exampletest.Run(t, func(ctx context.Context) error { return serve(ctx, l) })
	addr := l.Addr().String()

	cc := exampletest.GRPC(t, addr)
	exampletest.CheckHealth(t, cc)
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")
	for _, http2 := range []bool{false, true} {
		want := "Hello, World, over HTTP/1.1\n"
		if http2 {
			want = "Hello, World, over HTTP/2.0\n"
		}
		if status, got := exampletest.Get(t, exampletest.HTTP(t, http2), "http://"+addr+"/hello/World"); status != 200 || got != want {
			t.Errorf("%d, %q, want %q", status, got, want)
		}
	}
	stop()
	logged.Await(t, "waiting at most 10 seconds for running requests")
}
