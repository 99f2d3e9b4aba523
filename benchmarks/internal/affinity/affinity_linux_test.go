package affinity

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPin is not parallel, since it is about the whole process.
func TestPin(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	procs := runtime.GOMAXPROCS(0)
	t.Cleanup(func() {
		if err := Pin(all); err != nil {
			t.Error(err)
		}
		runtime.GOMAXPROCS(procs)
	})
	for range 20 { // so that there are threads
		go func() {
			runtime.LockOSThread()
			select {}
		}()
	}
	one := all[len(all)-1:]
	if err := Pin(one); err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("GOMAXPROCS is %d", n)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, thread := range threads {
		b, err := os.ReadFile("/proc/self/task/" + thread.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), "Cpus_allowed_list:")
		list, _, _ := strings.Cut(rest, "\n")
		if want == "" {
			want = list
		}
		if list != want || strings.ContainsAny(list, ",-") {
			t.Errorf("thread %s may use %s", thread.Name(), strings.TrimSpace(list))
		}
	}
	if got, err := now(); err != nil || !cmp.Equal(got, one) {
		t.Errorf("%v, %v; want %v", got, err, one)
	}
}

func TestHalvesHere(t *testing.T) {
	server, load, err := Halves()
	if runtime.NumCPU() < 2 {
		if err == nil {
			t.Error("one processor was divided")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(server)+len(load) != runtime.NumCPU() || len(server) == 0 || len(load) == 0 {
		t.Errorf("%v and %v of %d", server, load, runtime.NumCPU())
	}
}
