package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
	"github.com/oneport-go/oneport/internal/exampletest"
	"github.com/oneport-go/oneport/internal/testenv"
)

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	err := demo(t.Context(), &out)
	if errors.Is(err, errNoHAProxy) {
		testenv.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	if s := out.String(); !strings.HasPrefix(s, "50 gRPC calls and 50 REST requests, ") || strings.Contains(s, "of which 0 carried both") {
		t.Errorf("not one connection carried both kinds: %s", s)
	}
}

func TestServices(t *testing.T) {
	l := exampletest.Listen(t)
	s := newServer(l)
	exampletest.CheckServices(t, exampletest.GRPC(t, l.Addr().String()), greeterpb.Greeter_ServiceDesc.ServiceName)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"-nonsense"}, &out, &errs); code != 2 || !strings.Contains(errs.String(), "-nonsense") {
		t.Errorf("exit status %d, %q", code, errs.String())
	}
	errs.Reset()
	if code := run([]string{"-addr", "nowhere.invalid:x"}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "-addr") {
		t.Errorf("exit status %d, %q", code, errs.String())
	}
}
