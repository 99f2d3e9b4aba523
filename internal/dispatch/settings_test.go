package dispatch

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"github.com/oneport-go/oneport/internal/h2"
)

// TestKnownSettings has a server begin with SETTINGS. A client that was sent the early ones, and goes by them, is not
// sent what they say already, and the server has them acknowledged at once.
func TestKnownSettings(t *testing.T) {
	t.Parallel()
	early := []http2.Setting{{ID: http2.SettingNoRFC7540Priorities, Val: 1}}
	window := append(early, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	for _, tt := range []struct {
		name    string
		early   []http2.Setting
		server  []http2.Setting
		unacked bool   // the client has not acknowledged the early SETTINGS
		reading bool   // the server has read what the client has sent, before it says anything
		sent    string // SETTINGS, to the client
	}{
		{name: "none", early: early},
		{name: "grpc-go", early: early, server: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 14}}},
		{name: "initial values", early: early, server: []http2.Setting{
			{ID: http2.SettingHeaderTableSize, Val: 4096}, {ID: http2.SettingInitialWindowSize, Val: 65535},
		}},
		{name: "the early ones", early: early, server: early},
		{name: "an early window", early: window, server: window},
		{name: "another value", early: early, server: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1<<14 + 1}},
			sent: "SETTINGS [MAX_FRAME_SIZE = 16385]"},
		{name: "the initial window behind an early one", early: window, server: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 65535}},
			sent: "SETTINGS [INITIAL_WINDOW_SIZE = 65535]"},
		{name: "a parameter without an initial value", early: early, server: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1000}},
			sent: "SETTINGS [MAX_CONCURRENT_STREAMS = 1000]"},
		{name: "one of two", early: early, server: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 14}, {ID: 0xff, Val: 1}},
			sent: "SETTINGS [MAX_FRAME_SIZE = 16384] [UNKNOWN_SETTING_255 = 1]"},
		{name: "another value first", early: early, server: []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 15}, {ID: http2.SettingMaxFrameSize, Val: 1 << 14}},
			sent: "SETTINGS [MAX_FRAME_SIZE = 32768] [MAX_FRAME_SIZE = 16384]"},
		{name: "no acknowledgement", early: early, unacked: true, sent: "SETTINGS"},
		{name: "the server reads", early: early, reading: true, sent: "SETTINGS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDispatcher(2)
			d.EarlySettings = tt.early
			inWorld(t, d, func(w *world) {
				defer d.Close()
				w.client.got() // the early SETTINGS
				if !tt.unacked {
					w.client.fr.WriteSettingsAck()
				}
				w.client.request(1, "0", false)
				c, err := d.all()[0].Accept()
				if err != nil {
					t.Fatal(err)
				}
				clientSays := []string{"SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 5000]", "HEADERS 1 :method=GET :path=/0"}
				hello := h2.AppendSettingsACK(h2.AppendSettings(nil, tt.server...))
				var server *end
				if tt.reading {
					server = newEnd(t, c, true)
					server.want(clientSays...)
					c.Write(hello)
				} else {
					c.Write(hello)
					server = newEnd(t, c, true)
					if tt.sent == "" {
						clientSays = slices.Insert(clientSays, 1, "SETTINGS ACK")
					}
					server.want(clientSays...)
				}
				defer server.close()
				server.headers(1, false, ":status", "200")
				response := []string{"SETTINGS ACK", "HEADERS 1 :status=200"}
				if tt.sent == "" {
					w.client.want(response...)
				} else {
					w.client.want(append([]string{tt.sent}, response...)...)
					if tt.unacked {
						w.client.fr.WriteSettingsAck()
					}
					w.client.fr.WriteSettingsAck()
					server.want("SETTINGS ACK")
				}

				// The server is taken to go by the same window when there is another beside it.
				w.client.request(3, "1", false)
				w.client.fr.WriteData(1, true, make([]byte, 1000))
				server.want("DATA 1 of 1000 END")
				server.fr.WriteData(1, true, []byte("x"))
				w.client.want(`DATA 1 "x" END`)
			})
		})
	}
}

// TestKnownSettingsOrder has a client make requests before it has seen the early SETTINGS, which allow fewer. Its server
// must not take them for requests that came after.
func TestKnownSettingsOrder(t *testing.T) {
	t.Parallel()
	d := newDispatcher(1)
	d.EarlySettings = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}, {ID: http2.SettingInitialWindowSize, Val: 1000}}
	inWorld(t, d, func(w *world) {
		defer d.Close()
		w.client.got() // the early SETTINGS
		var flight bytes.Buffer
		fr := http2.NewFramer(&flight, nil)
		for _, id := range []uint32{1, 3} {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: w.client.block(":method", "GET", ":path", "/0")})
		}
		fr.WriteData(1, true, make([]byte, 2000))
		fr.WriteSettingsAck()
		fr.WriteData(3, true, make([]byte, 1000))
		w.client.Write(flight.Bytes())
		c, err := d.all()[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Write(h2.AppendSettings(nil, d.EarlySettings...))
		server := newEnd(t, c, true)
		defer server.close()
		server.want("SETTINGS [ENABLE_PUSH = 0] [MAX_HEADER_LIST_SIZE = 5000]", "HEADERS 1 :method=GET :path=/0",
			"HEADERS 3 :method=GET :path=/0", "DATA 1 of 2000 END", "SETTINGS ACK", "DATA 3 of 1000 END")
	})
}

// TestSettingsOfGRPC has grpc-go serve a client that was sent the early SETTINGS. Its own are not sent.
func TestSettingsOfGRPC(t *testing.T) {
	t.Parallel()
	d := newDispatcher(1)
	inWorld(t, d, func(w *world) {
		defer d.Close()
		w.client.got() // the early SETTINGS
		w.client.fr.WriteSettingsAck()
		w.client.headers(1, true, ":method", "POST", ":scheme", "http", ":path", "/0/Call", ":authority", "a",
			"content-type", "application/grpc", "te", "trailers")
		synctest.Wait() // it is queued
		server := grpc.NewServer()
		defer server.Stop()
		go server.Serve(d.all()[0])
		got := w.client.got()
		if len(got) != 2 || got[0] != "SETTINGS ACK" || !strings.HasPrefix(got[1], "HEADERS 1 ") {
			t.Errorf("the client has got %q, want an acknowledgement and a response", got)
		}
	})
}
