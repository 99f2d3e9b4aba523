package machine

import (
	"runtime"
	"testing"
	"time"
)

// TestOthersAndInterrupts keeps the network busy, which the system may count for this process and as interrupts. What
// is counted twice makes it look as if others had less than nothing.
func TestOthersAndInterrupts(t *testing.T) {
	client, server, err := loopback()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	defer server.Close()
	before := Now()
	for time.Since(before.At) < time.Second/2 {
		if !exchange(client, server) {
			t.Fatal("nothing was sent")
		}
	}
	if others := float64(runtime.NumCPU()) * Now().Others(before, 0); others < -0.1 {
		t.Errorf("others had %.2f of a processor", others)
	}
}
