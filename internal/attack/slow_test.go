package attack

import (
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/testenv"
)

// TestSlowConnections has many connections that gRPC and HTTP share. On each, answers of both wait for a client that
// reads nothing, and uploads to both wait for handlers that read nothing. They stay below what docs/requests.md says is
// held for a connection, and Shutdown ends them all in its time. ONEPORT_SLOW_CONNS is how many there are.
func TestSlowConnections(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("with the race detector a process takes other memory, and time")
	}
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("the resident size of a process is not known here")
	}
	conns := 100
	if n, err := strconv.Atoi(os.Getenv("ONEPORT_SLOW_CONNS")); err == nil {
		conns = n
	}
	s := start(t, "slow")
	before := s.load()
	w := &writer{}
	w.Framer = http2.NewFramer(&w.Buffer, nil)
	w.WriteString(http2.ClientPreface)
	w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	for id := uint32(1); id <= 7; id += 2 {
		path := "/s/big"
		if id >= 5 {
			path = "/s/hang"
		}
		w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: id < 5, BlockFragment: w.blockTo(path, id%4 == 1)})
		if id >= 5 {
			w.WriteData(id, false, make([]byte, 16_000))
			w.WriteData(id, false, make([]byte, 16_000))
		}
	}
	w.WritePing(false, lastPing)
	var open sync.WaitGroup
	for range conns {
		c, err := net.Dial("tcp", before.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		open.Go(func() {
			c.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := c.Write(w.Bytes()); err != nil {
				t.Error(err)
			}
			awaitSettings(c)
		})
	}
	open.Wait()
	var now load
	for deadline := time.Now().Add(30 * time.Second); now.Shared < conns && time.Now().Before(deadline); {
		now = s.load()
	}
	if now.Shared != conns {
		t.Errorf("%d of %d connections are shared", now.Shared, conns)
	}
	each := (now.Memory - before.Memory) / int64(conns)
	// Uploads, and answers of each server; frames that servers do not read, and that the client does not; see
	// docs/requests.md. What the servers themselves take, their buffers and the answers in them, is not oneport's.
	const bound = maxBuffered + 2*(maxBuffered+maxBuffered/2) + 2*(256<<10) + 512<<10
	t.Logf("%d connections take %d KiB each, of %d", conns, each>>10, bound>>10)
	if each > bound {
		t.Errorf("each connection takes %d KiB, more than %d", each>>10, bound>>10)
	}
	began := time.Now()
	left := s.do("shutdown")
	took := time.Since(began)
	t.Logf("Shutdown took %v", took)
	if took > shutdownTime+5*time.Second || left.Left != 0 {
		t.Errorf("Shutdown took %v, and left %d connections", took, left.Left)
	}
}

// awaitSettings reads the first frame.
func awaitSettings(c net.Conn) { http2.NewFramer(nil, c).ReadFrame() }
