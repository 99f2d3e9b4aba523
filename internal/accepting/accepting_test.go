package accepting

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// passing is an error of the kind that says so itself.
type passing struct{}

func (passing) Error() string   { return "it passes" }
func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func TestPasses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}, true},
		{fmt.Errorf("wrapped: %w", syscall.ECONNABORTED), true},
		{os.ErrDeadlineExceeded, true},
		{passing{}, true},
		{net.ErrClosed, false},
		{syscall.EBADF, false},
		{io.EOF, false},
		{errors.New("broken"), false},
	} {
		if got := Passes(tt.err); got != tt.want {
			t.Errorf("%v passes: %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	d := time.Duration(0)
	for _, ms := range []int64{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		if d = Backoff(d); d.Milliseconds() != ms {
			t.Errorf("waits %v, want %d ms", d, ms)
		}
	}
}
