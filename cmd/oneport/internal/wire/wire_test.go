package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain – ü":               "plain – ü",
		"\x1b[31mred":             `\x1b[31mred`,
		"a\r\nb":                  `a\r\nb`,
		"\xff":                    `\xff`,
		"\u202etxt":               `\u202etxt`,
		`a "quoted" word`:         `a "quoted" word`,
		strings.Repeat("x", 1000): strings.Repeat("x", maxText) + "…",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestLanguageOf(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Language{
		"":                                     Nothing,
		"HTTP/1.1 200 OK\r\n":                  HTTP1,
		"SSH-2.0-x":                            SSH,
		"\x15\x03\x01\x00\x02\x02\x28":         TLSAlert,
		"\x16\x03\x03\x00\x02":                 TLSRecord,
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00": HTTP2,
		"220 smtp\r\n":                         OtherText,
		"\x00\x01\x02":                         OtherBinary,
		"caf\xc3\xa9":                          OtherBinary,
	} {
		if got := LanguageOf([]byte(in)); got != want {
			t.Errorf("LanguageOf(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestEndingOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want Ending
	}{
		{io.EOF, Closed},
		{io.ErrUnexpectedEOF, Truncated},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, Reset},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, Reset},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, TimedOut},
		{net.ErrClosed, Interrupted},
		{ErrTooMuch, TooMuch},
		{errors.New("x"), Broken},
	} {
		if got := EndingOf(test.err); got != test.want {
			t.Errorf("EndingOf(%v) is %q, want %q", test.err, got, test.want)
		}
	}
}

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	l := NewLog()
	for range 2 * maxEvents {
		l.Add(Received, "x", slices.Repeat([]string{"detail"}, 2*maxDetails)...)
	}
	events := l.Events()
	if len(events) != maxEvents+1 || !strings.Contains(events[maxEvents].Text, "400 more events") {
		t.Errorf("%d events, the last %q", len(events), events[len(events)-1].Text)
	}
	if d := events[0].Details; len(d) != maxDetails+1 || d[maxDetails] != "(60 more)" {
		t.Errorf("%d details, the last %q", len(d), d[len(d)-1])
	}
}

// A script is a connection on which the server has said all that it will say.
type script struct {
	net.Conn
	r io.Reader
}

func (s *script) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// play has a session read what the server says, up to the end of the response or of the connection.
func play(server []byte) (*Session, *Stream, error) {
	c := NewConn(&script{r: bytes.NewReader(server)}, NewLog())
	s := NewSession(c, bufio.NewReader(c), time.Now().Add(time.Hour))
	s.Preface()
	st := s.Request(nil, hpack.HeaderField{Name: ":method", Value: "GET"})
	err := s.Until(st.Done)
	return s, st, err
}

func server(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	write(fr)
	return b.Bytes()
}

func block(fields ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func headers(fr *http2.Framer, stream uint32, fields ...string) {
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: true, BlockFragment: block(fields...)})
}

func TestSessionFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		write func(*http2.Framer)
		want  []Fault
	}{
		{"none", func(fr *http2.Framer) { fr.WriteSettings(); fr.WriteSettingsAck(); headers(fr, 1, ":status", "200") }, nil},
		{"an interim response", func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(":status", "103")})
			headers(fr, 1, ":status", "200")
		}, nil},
		{"no SETTINGS", func(fr *http2.Framer) { headers(fr, 1, ":status", "200") }, []Fault{FaultNotSettings}},
		{"acknowledgement first", func(fr *http2.Framer) { fr.WriteSettingsAck(); fr.WriteSettings(); headers(fr, 1, ":status", "200") }, []Fault{FaultNotSettings}},
		{"acknowledged twice", func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteSettingsAck()
			fr.WriteSettingsAck()
			headers(fr, 1, ":status", "200")
		}, []Fault{FaultExtraACK}},
		{"a pseudo-header field of a request", func(fr *http2.Framer) { fr.WriteSettings(); headers(fr, 1, ":path", "/") }, []Fault{FaultFieldName, FaultNoStatus}},
		{"a name in upper case", func(fr *http2.Framer) { fr.WriteSettings(); headers(fr, 1, ":status", "200", "Server", "x") }, []Fault{FaultFieldName}},
		{"a status that is none", func(fr *http2.Framer) { fr.WriteSettings(); headers(fr, 1, ":status", "009") }, []Fault{FaultNoStatus}},
		{"another stream", func(fr *http2.Framer) { fr.WriteSettings(); headers(fr, 2, ":status", "200") }, []Fault{FaultWrongStream}},
		{"priorities", func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteSettings(http2.Setting{ID: noPriorities, Val: 1})
			headers(fr, 1, ":status", "200")
		}, []Fault{FaultPriorities}},
		{"HPACK", func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}})
		}, []Fault{FaultCompression}},
		{"PUSH_PROMISE in the middle of a field block", func(fr *http2.Framer) {
			fr.WriteSettings()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200")})
			fr.WritePing(false, [8]byte{})
		}, []Fault{FaultFrame}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := play(server(test.write))
			var got []Fault
			for _, v := range s.Violations {
				got = append(got, v.Fault)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("faults %q, want %q", got, test.want)
			}
		})
	}
}

func TestSessionReads(t *testing.T) {
	t.Parallel()
	s, st, err := play(server(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384})
		fr.WriteSettingsAck()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(":status", "200", "content-type", "application/grpc")})
		fr.WriteData(1, false, []byte("body"))
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block("grpc-status", "0")})
	}))
	if err != nil || len(s.Violations) > 0 {
		t.Fatalf("%v, %v", err, s.Violations)
	}
	if !st.Ended || st.Field(":status") != "200" || st.Field("grpc-status") != "0" || string(st.Body) != "body" || s.ACKs != 1 || len(s.Settings) != 1 {
		t.Errorf("stream %+v, session %+v", st, s)
	}
}

func TestSessionMeetsHTTP1(t *testing.T) {
	t.Parallel()
	_, _, err := play([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"))
	foreign, ok := errors.AsType[*Foreign](err)
	if !ok || foreign.Language != HTTP1 || foreign.Response == nil || foreign.Response.StatusCode != 400 {
		t.Errorf("%v", err)
	}
}

// FuzzSession has sessions read anything: they end, and keep little.
func FuzzSession(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Add(server(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: 9, Val: 1})
		fr.WriteSettingsAck()
		fr.WritePing(false, [8]byte{})
		headers(fr, 1, ":status", "200")
		fr.WriteGoAway(1, http2.ErrCodeNo, []byte("\x1b"))
	}))
	f.Add(server(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200")})
		fr.WriteContinuation(1, true, block("a", "b"))
		fr.WriteData(1, true, []byte("x"))
		fr.WriteRSTStream(1, http2.ErrCodeCancel)
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, st, err := play(b)
		if err == nil && !st.Done() {
			t.Error("it has neither read to the end nor failed")
		}
		if len(st.Body) > MaxBody || len(s.fields) > maxFieldBytes/32 || len(s.Settings) > 32 || len(s.Violations) > 20 {
			t.Errorf("it keeps %d bytes, %d fields, %d SETTINGS, %d violations", len(st.Body), len(s.fields), len(s.Settings), len(s.Violations))
		}
		for _, e := range s.log.Events() {
			for _, text := range append(e.Details, e.Text) {
				if Printable(text) != text && len(text) <= maxText {
					t.Errorf("%q is in the log", text)
				}
			}
		}
	})
}
