package oneport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// acceptError is an error of Accept as listeners return it.
func acceptError(err error) error {
	return &net.OpError{Op: "accept", Net: "pipe", Err: err}
}

type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }
func (temporaryError) Timeout() bool   { return false }

func TestAcceptErrorsThatPass(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"EMFILE":       acceptError(os.NewSyscallError("accept4", syscall.EMFILE)),
		"ENFILE":       acceptError(os.NewSyscallError("accept4", syscall.ENFILE)),
		"ENOBUFS":      acceptError(os.NewSyscallError("accept4", syscall.ENOBUFS)),
		"ECONNABORTED": acceptError(os.NewSyscallError("accept4", syscall.ECONNABORTED)),
		"timeout":      acceptError(os.ErrDeadlineExceeded),
		"temporary":    temporaryError{errors.New("later")},
		"wrapped":      fmt.Errorf("proxy: %w", acceptError(syscall.ECONNABORTED)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				root := newPipeListener()
				m := newMux(root)
				route := m.Match(Any())
				serve(t, m)
				start := time.Now()
				const times = 20
				for range times {
					root.errs <- err
				}
				dial(t, root)
				accept(t, route)
				// 5, 10, 20, ... 640 ms, then a second each.
				if got, want := time.Since(start), 1275*time.Millisecond+12*time.Second; got != want {
					t.Errorf("waited %v in all, want %v", got, want)
				}
				if got := m.Stats().AcceptErrors; got != times {
					t.Errorf("Stats counts %d errors, want %d", got, times)
				}
				// A connection in between starts the waiting over; and Close does not wait.
				start = time.Now()
				root.errs <- err
				dial(t, root)
				accept(t, route)
				if got := time.Since(start); got != 5*time.Millisecond {
					t.Errorf("waited %v after a success, want 5ms", got)
				}
				root.errs <- err
				m.Close()
			})
		})
	}
}

// TestNoFilesLeft checks that silent clients do not keep others out when the process has no files left.
func TestNoFilesLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := newPipeListener()
		m := newMux(root)
		m.Match(HTTP1())
		serve(t, m)
		silent := dial(t, root)
		synctest.Wait()
		root.errs <- acceptError(syscall.EMFILE)
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the silent client got %v, want the end", err)
		}
		synctest.Wait()
		if n := m.Stats().Refused[ReasonTooMany]; n != 1 {
			t.Errorf("%d connections were refused for being too many, want 1", n)
		}
	})
}

func TestServeFails(t *testing.T) {
	t.Parallel()
	unknown := errors.New("something unheard of")
	for _, tt := range []struct {
		name  string
		setUp func(m *Mux, root *pipeListener)
		want  string
		is    error
	}{
		{"no route", func(*Mux, *pipeListener) {}, "no route", nil},
		{"bad early SETTINGS", func(m *Mux, _ *pipeListener) {
			m.Match(Any())
			m.EarlySettings = []Setting{{ID: uint16(http2.SettingEnablePush), Value: 2}}
		}, "EarlySettings", nil},
		{"unknown error", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			go func() { root.errs <- unknown }()
		}, "accepting on pipe: something unheard of", unknown},
		{"listener closed", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			root.Close()
		}, "mux closed", ErrClosed},
		{"Shutdown before", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			m.Shutdown(t.Context())
		}, "mux closed", net.ErrClosed},
		{"Close before", func(m *Mux, root *pipeListener) {
			m.Match(Any())
			m.Close()
		}, "mux closed", ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := newPipeListener()
			m := newMux(root)
			tt.setUp(m, root)
			err := m.Serve()
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Serve returned %v, want %q, which is %v", err, tt.want, tt.is)
			}
		})
	}

	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		root := newPipeListener()
		m := newMux(root)
		route := m.Match(Any())
		serve(t, m)
		dial(t, root)
		accept(t, route) // so the first Serve has begun
		if err := m.Serve(); err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("the second Serve returned %v", err)
		}
		dial(t, root)
		accept(t, route) // and is not disturbed
	})
}
