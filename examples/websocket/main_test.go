package main

import (
	"bufio"
	"context"
	"io"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/oneport-go/oneport/internal/exampletest"
)

func TestMain(m *testing.M) {
	log.SetOutput(&logged)
	goleak.VerifyTestMain(m)
}

var logged exampletest.Log

// TestServe has a client of each kind, and ends the server while they are there.
func TestServe(t *testing.T) {
	tick := make(chan time.Time)
	l := exampletest.Listen(t)
	stop := exampletest.Run(t, func(ctx context.Context) error { return serve(ctx, l, tick) })
	addr := l.Addr().String()

	cc := exampletest.GRPC(t, addr)
	exampletest.CheckHealth(t, cc)
	exampletest.CheckServices(t, cc, "grpc.health.v1.Health")

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/echo", &websocket.DialOptions{HTTPClient: exampletest.HTTP(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, message := range []string{"hello", strings.Repeat("long ", 5000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != message {
			t.Errorf("%q, %v, want %q", got, err, message)
		}
	}

	var streams []*bufio.Reader
	for _, http2 := range []bool{false, true} {
		res, err := exampletest.HTTP(t, http2).Get("http://" + addr + "/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		events := bufio.NewReader(res.Body)
		streams = append(streams, events)
		got := make(chan string, 1)
		go func() {
			var event string
			for !strings.HasSuffix(event, "\n\n") {
				line, err := events.ReadString('\n')
				if event += line; err != nil {
					event += err.Error()
					break
				}
			}
			got <- event
		}()
		for waiting := true; waiting; { // either stream may take a tick
			select {
			case tick <- time.Time{}:
			case event := <-got:
				if waiting = false; !strings.HasSuffix(event, "\ndata: tick\n\n") {
					t.Errorf("event over %s: %q", res.Proto, event)
				}
			}
		}
	}

	stop()
	if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the WebSocket ends with %v, want status %v", err, websocket.StatusGoingAway)
	}
	for _, events := range streams {
		if _, err := io.ReadAll(events); err != nil {
			t.Errorf("a stream of events ends with %v", err)
		}
	}
	logged.Await(t, "waiting at most 10 seconds for 1 WebSockets")
}
