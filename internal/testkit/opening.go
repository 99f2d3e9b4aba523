// Package testkit is for the tests of other packages: it opens and closes connections as a mux does, and measures stacks.
package testkit

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/h2open"
	"github.com/oneport-go/oneport/internal/refusal"
)

// Opened is an HTTP/2 connection up to its first request.
type Opened struct {
	Received               []byte
	StreamID               uint32
	Fields                 []hpack.HeaderField
	Block                  []byte
	Decoder                *hpack.Decoder
	Settings               []http2.Setting
	SettingsEnd            int
	Early                  bool
	Acknowledged, Answered int
}

// OpenHTTP2 reads from a client's connection up to its first request, and says what a mux says meanwhile.
func OpenHTTP2(sock net.Conn, early []http2.Setting, maxHeaderList int) (*Opened, error) {
	parser := &h2.Parser{MaxHeaderListSize: maxHeaderList}
	opening := h2open.Opening{Parser: parser}
	frame := h2.AppendSettings(nil, early...)
	var b []byte
	for {
		state := parser.Parse(b)
		if state == h2.Complete {
			break
		}
		now := time.Now()
		opening.Advance(now)
		out := opening.Append(nil, frame, now)
		if state != h2.Incomplete {
			if err := parser.Err(); err != nil {
				sock.Write(h2.AppendGoAway(out, 0, err.Code, err.Reason))
				return nil, err
			}
			return nil, errors.New("not HTTP/2")
		}
		sock.SetReadDeadline(opening.Wake(now))
		if len(out) > 0 {
			sock.Write(out)
		}
		more := make([]byte, 4096)
		n, err := sock.Read(more)
		b = append(b, more[:n]...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
	sock.SetReadDeadline(time.Time{})
	if opening.Acknowledged() == 0 && parser.SettingsFrames() > 1 {
		sock.Write(opening.StandIn(nil))
	}
	return &Opened{
		Received: b, StreamID: parser.StreamID(), Fields: parser.Fields(), Block: parser.Block(b), Decoder: parser.TakeDecoder(), Settings: parser.Settings(),
		SettingsEnd: parser.SettingsEnd(), Early: opening.Early(), Acknowledged: opening.Acknowledged(), Answered: opening.Answered(),
	}, nil
}

// Linger closes a connection so that the client can read what was written last.
func Linger(c net.Conn) { refusal.Send(c, nil, make([]byte, 4096)) }
