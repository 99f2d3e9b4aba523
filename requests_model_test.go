package oneport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
)

// TestRequestsEnd shuts down or closes a mux, whose requests are dispatched, at any moment of what clients and servers
// do. In its time nothing is left of them, whatever clients there are.
func TestRequestsEnd(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { endRequests(t, rand.New(rand.NewPCG(uint64(seed), 0))) })
		})
	}
}

func endRequests(t *testing.T, rng *rand.Rand) {
	root := newPipeListener()
	m := newMux(root)
	q := m.Requests()
	routes := []Matcher{Path("/0"), Path("/1"), Any()}
	var running sync.WaitGroup
	var servers []*http.Server
	for i, matcher := range routes {
		l := q.Match(matcher)
		if i == 2 {
			continue // its server does not accept
		}
		s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.RawQuery {
			case "wait":
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			case "big":
				w.Write(make([]byte, 300_000))
			}
			io.Copy(w, r.Body)
		})}
		ConfigureHTTP(s)
		servers = append(servers, s)
		running.Go(func() { s.Serve(l) })
	}
	served := make(chan error, 1)
	running.Go(func() { served <- m.Serve() })

	stop := make(chan struct{})
	for range 1 + rng.IntN(6) {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		running.Go(func() { actAtRandom(root, rng, stop) })
	}

	time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
	began := time.Now()
	how := rng.IntN(3)
	switch how {
	case 0:
		m.Close()
	case 1:
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(5000))*time.Millisecond)
		if err := m.Shutdown(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		cancel()
	case 2:
		for _, s := range servers[:rng.IntN(len(servers)+1)] {
			s.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m.Shutdown(ctx)
		cancel()
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	if err := <-served; err != ErrClosed {
		t.Error(err)
	}
	time.Sleep(5 * time.Second) // for clients that do not take what is written last
	synctest.Wait()
	if s := m.Stats(); s.Undecided+s.Queued+s.Refusing+s.Passing+s.Shared != 0 {
		t.Errorf("ended in way %d, left are %d undecided, %d queued, %d refusing, %d passing, %d shared", how, s.Undecided, s.Queued, s.Refusing, s.Passing, s.Shared)
	}
	close(stop)
	for _, s := range servers {
		s.Close()
	}
	running.Wait()
}

// actAtRandom is a client that sends random frames until its connection ends or stop is closed.
func actAtRandom(root *pipeListener, rng *rand.Rand, stop <-chan struct{}) {
	conn, err := root.dial()
	if err != nil {
		return
	}
	reader := rand.New(rand.NewPCG(rng.Uint64(), 2))
	reads, acks, vanishes := rng.IntN(4) > 0, rng.IntN(3) > 0, rng.IntN(8) == 0
	var mu sync.Mutex
	var out bytes.Buffer
	fw := http2.NewFramer(&out, nil)
	var both sync.WaitGroup
	ended := make(chan struct{})
	both.Go(func() {
		defer close(ended)
		if !reads {
			<-stop
			return
		}
		for fr := http2.NewFramer(nil, conn); ; {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			mu.Lock()
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() && acks {
					fw.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !f.IsAck() && acks {
					fw.WritePing(true, f.Data)
				}
			case *http2.DataFrame:
				if f.Length > 0 && reader.IntN(2) == 0 {
					fw.WriteWindowUpdate(0, f.Length)
					fw.WriteWindowUpdate(f.StreamID, f.Length)
				}
			}
			mu.Unlock()
		}
	})
	both.Go(func() {
		defer conn.Close()
		out.WriteString(h2.Preface)
		fw.WriteSettings()
		next := uint32(1)
		var open []uint32
		for {
			mu.Lock()
			switch rng.IntN(5) {
			case 0, 1:
				var block bytes.Buffer
				enc := hpack.NewEncoder(&block)
				enc.SetMaxDynamicTableSize(0)
				target := rng.IntN(2)
				if rng.IntN(10) == 0 {
					target = 2
				}
				query := []string{"", "?wait", "?big"}[rng.IntN(3)]
				for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", fmt.Sprintf("/%d%s", target, query)}} {
					enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
				}
				end := rng.IntN(2) == 0
				fw.WriteHeaders(http2.HeadersFrameParam{StreamID: next, EndHeaders: true, EndStream: end, BlockFragment: block.Bytes()})
				if !end {
					open = append(open, next)
				}
				next += 2
			case 2:
				if len(open) > 0 {
					fw.WriteData(open[0], true, []byte("content"))
					open = open[1:]
				}
			case 3:
				if len(open) > 0 {
					fw.WriteRSTStream(open[0], http2.ErrCodeCancel)
					open = open[1:]
				}
			case 4:
				fw.WritePing(false, [8]byte{})
			}
			b := bytes.Clone(out.Bytes())
			out.Reset()
			mu.Unlock()
			if _, err := conn.Write(b); err != nil || vanishes && rng.IntN(10) == 0 {
				return
			}
			select {
			case <-ended:
				return
			case <-stop:
				return
			case <-time.After(time.Duration(rng.IntN(200)) * time.Millisecond):
			}
		}
	})
	both.Wait()
}
