package machine

import (
	"math"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	idle, irq, steal, ok := parseStat("cpu  388766 0 113033 551837 2409 10 12037 4185 0 0\ncpu0 1 2\n")
	const tick = 10 * time.Millisecond
	if !ok || idle != (551837+2409)*tick || irq != 12047*tick || steal != 4185*tick {
		t.Errorf("idle %v, interrupts %v, stolen %v, %v", idle, irq, steal, ok)
	}
	for _, stat := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu a 2 3 4 5 6 7 8"} {
		if _, _, _, ok := parseStat(stat); ok {
			t.Errorf("%q was read", stat)
		}
	}
}

func TestOthers(t *testing.T) {
	t.Parallel()
	n := time.Duration(runtime.NumCPU())
	at := time.Now()
	before := Times{At: at, Idle: time.Hour}
	after := Times{
		At: at.Add(100 * time.Millisecond), Idle: time.Hour + n*40*time.Millisecond, IRQ: n * 10 * time.Millisecond,
		Own: n * 15 * time.Millisecond, Steal: n * 5 * time.Millisecond,
	}
	if got := after.Others(before, n*10*time.Millisecond); math.Abs(got-0.25) > 1e-9 {
		t.Errorf("others had %v, want 0.25", got)
	}
	if got := after.Stolen(before); math.Abs(got-0.05) > 1e-9 {
		t.Errorf("stolen: %v, want 0.05", got)
	}
	if got := after.Others(before, n*40*time.Millisecond); math.Abs(got+0.05) > 1e-9 {
		t.Errorf("others had %v, want -0.05, with servers that seem to have had more than there was", got)
	}
	if got := before.Others(before, 0); got != 0 {
		t.Errorf("others had %v of no time", got)
	}
}

// TestNow sees that this process works.
func TestNow(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system does not say")
	}
	before := Now()
	for Now().Own == before.Own {
	}
	if before.Idle == 0 || Load() == "" {
		t.Errorf("%+v, load %q", before, Load())
	}
}

// TestLook looks at this process, which works, and opens a file.
func TestLook(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not say")
	}
	before, err := Look(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for until := time.Now().Add(30 * time.Millisecond); time.Now().Before(until); {
	}
	after, err := Look(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.CPU <= before.CPU || after.Resident == 0 || after.Peak < after.Resident || after.Files < 3 || after.Voluntary+after.Involuntary == 0 {
		t.Errorf("%+v, then %+v", before, after)
	}
	if _, err := Look(1 << 30); err == nil {
		t.Error("there is no such process, and no error")
	}
}
