package strace

import (
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oneport-go/oneport/internal/testenv"
)

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse(strings.NewReader("    calls syscall\n--------- ----------------\n     1001 read\n      500 write\n--------- ----------------\n     1501 total\n"))
	if diff := cmp.Diff(map[string]int{"read": 1001, "write": 500}, got); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

// TestCount counts those of cat, which reads and writes once for each line that it is sent.
func TestCount(t *testing.T) {
	t.Parallel()
	if err := Find(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("cat")
	in, lines := testenv.Start(t, cmd)
	talk := func() error {
		for range 10 {
			if _, err := io.WriteString(in, "hello\n"); err != nil {
				return err
			}
			if _, err := lines.ReadString('\n'); err != nil {
				return err
			}
		}
		return nil
	}
	if err := talk(); err != nil {
		t.Fatal(err)
	}
	counts, err := Count(cmd.Process.Pid, talk)
	if err != nil {
		t.Skip("processes cannot be traced here: ", err)
	}
	// The read that the process waits in when tracing begins may not count, nor what it is about to return from at the
	// end.
	if counts["write"] < 9 || counts["write"] > 10 || counts["read"] < 9 || counts["read"] > 11 {
		t.Errorf("%v", counts)
	}
	if _, err := Count(1<<22+1, talk); err == nil {
		t.Error("there is no such process, and no error")
	}
}
