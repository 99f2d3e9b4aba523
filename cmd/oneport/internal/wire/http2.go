package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Bounds on what a server can have a Session do, beside MaxBytes.
const (
	maxFrames      = 500      // in all
	maxFieldBytes  = 64 << 10 // of one header list, decompressed, as RFC 9113, Section 6.5.2 counts
	maxFieldLength = 16 << 10 // of one name or value
	maxFrameSize   = 16 << 10 // the initial SETTINGS_MAX_FRAME_SIZE, which the probe leaves as it is
	maxWindowBytes = 65535    // the initial flow-control window
)

// noPriorities is SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218, Section 2.1).
const noPriorities = http2.SettingID(0x9)

// A Fault is a rule of HTTP/2 that the server breaks.
type Fault string

const (
	FaultNotSettings Fault = "settings-not-first"    // the first frame is not SETTINGS
	FaultFieldName   Fault = "bad-field-name"        // a name that no response may have
	FaultNoStatus    Fault = "no-status"             // a response without :status
	FaultWrongStream Fault = "wrong-stream"          // a frame on a stream that the client has not opened
	FaultNoACK       Fault = "settings-not-acked"    // the client's SETTINGS are not acknowledged
	FaultPriorities  Fault = "priorities-changed"    // SETTINGS_NO_RFC7540_PRIORITIES changes
	FaultHeaderList  Fault = "header-list-too-large" // more than maxFieldBytes
	FaultCompression Fault = "compression"           // HPACK that cannot be decoded
	FaultFrame       Fault = "bad-frame"             // a frame that breaks the rules in another way
	FaultFlood       Fault = "too-many-frames"       // more than maxFrames
	FaultWindow      Fault = "flow-control"          // more DATA than the window allows
	FaultExtraACK    Fault = "settings-ack-unasked"  // more acknowledgements than the client has sent SETTINGS
)

// A Violation is a fault, with what it was in this case.
type Violation struct {
	Fault Fault
	Text  string
}

// errFault ends reading: what the server has sent makes it impossible or useless to go on.
type errFault Violation

func (e errFault) Error() string { return e.Text }

// A Foreign is the error of reading HTTP/2 from a server that speaks something else.
type Foreign struct {
	Language Language
	Response *Response // if it is HTTP/1
}

func (e *Foreign) Error() string { return "the server answers with " + e.Language.Words() }

// A GoAway is a GOAWAY frame.
type GoAway struct {
	Code       http2.ErrCode
	LastStream uint32
	Debug      string
}

// A Stream is a request and its response.
type Stream struct {
	ID       uint32
	Fields   []hpack.HeaderField // of the response
	Trailers []hpack.HeaderField
	Body     []byte
	Ended    bool // by END_STREAM, or by the probe, which has seen enough
	Reset    bool
	Code     http2.ErrCode // of RST_STREAM

	received int
}

// Done reports whether the stream has ended.
func (s *Stream) Done() bool { return s.Ended || s.Reset }

// Field returns a field of the response, or of its trailers.
func (s *Stream) Field(name string) string {
	for _, f := range slices.Concat(s.Fields, s.Trailers) {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// A SettingsFrame is a SETTINGS frame of the server.
type SettingsFrame struct {
	At     time.Duration // since the session was begun
	Values []http2.Setting
}

// A Session is an HTTP/2 connection, from the client's side. It is for one goroutine.
type Session struct {
	Settings   []SettingsFrame // in the order in which they came
	ACKs       int             // of the client's SETTINGS
	ACKAt      time.Duration   // when the first came
	Pongs      int             // acknowledgements of PING
	GoAway     *GoAway
	Violations []Violation

	c       *Conn
	log     *Log
	br      *bufio.Reader
	out     bytes.Buffer
	fr      *http2.Framer
	block   bytes.Buffer
	enc     *hpack.Encoder
	dec     *hpack.Decoder
	streams map[uint32]*Stream
	next    uint32 // the ID of the next stream

	began      time.Time
	deadline   time.Time // of everything
	frames     int
	sent       int // SETTINGS
	window     int // what the server may still send on the connection
	fields     []hpack.HeaderField
	fieldBytes int
	inBlock    bool
	blockOf    *Stream
	endStream  bool
	priorities uint32
}

// NewSession begins an HTTP/2 connection on c, which has to end at deadline. The reader holds what was read from c
// before.
func NewSession(c *Conn, br *bufio.Reader, deadline time.Time) *Session {
	s := &Session{
		c: c, log: c.log, br: br, began: time.Now(), deadline: deadline,
		streams: make(map[uint32]*Stream), next: 1, window: maxWindowBytes,
	}
	s.fr = http2.NewFramer(&s.out, br)
	s.fr.SetMaxReadFrameSize(maxFrameSize)
	s.enc = hpack.NewEncoder(&s.block)
	s.dec = hpack.NewDecoder(4096, s.field)
	s.dec.SetMaxStringLength(maxFieldLength)
	return s
}

// Preface queues the connection preface and the client's SETTINGS.
func (s *Session) Preface() {
	s.out.WriteString(http2.ClientPreface)
	s.log.Add(Sent, "connection preface", "PRI * HTTP/2.0")
	s.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	s.sent++
	s.log.Add(Sent, "SETTINGS", "ENABLE_PUSH = 0")
}

// Open opens the next stream. The first one is that of a request which was sent by Upgrade.
func (s *Session) Open() *Stream {
	st := &Stream{ID: s.next}
	s.streams[st.ID] = st
	s.next += 2
	return st
}

// Request queues a request.
func (s *Session) Request(body []byte, fields ...hpack.HeaderField) *Stream {
	st := s.Open()
	id := st.ID
	s.block.Reset()
	var details []string
	for _, f := range fields {
		s.enc.WriteField(f)
		details = append(details, f.Name+": "+f.Value)
	}
	s.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: body == nil,
	})
	text := fmt.Sprintf("HEADERS, stream %d", id)
	if body == nil {
		text += ", END_STREAM"
	}
	s.log.Add(Sent, text, details...)
	if body != nil {
		s.fr.WriteData(id, true, body)
		s.log.Add(Sent, fmt.Sprintf("DATA, stream %d, END_STREAM", id), fmt.Sprintf("%d bytes", len(body)))
	}
	return st
}

// Ping queues a PING.
func (s *Session) Ping() {
	s.fr.WritePing(false, [8]byte{'o', 'n', 'e', 'p', 'o', 'r', 't', '?'})
	s.log.Add(Sent, "PING")
}

// Goodbye queues a GOAWAY without an error.
func (s *Session) Goodbye() {
	s.fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	s.log.Add(Sent, "GOAWAY NO_ERROR")
}

// Flush sends what is queued, in one piece.
func (s *Session) Flush() error {
	_, err := s.c.Write(s.out.Bytes())
	s.out.Reset()
	return err
}

// Until reads, and answers what has to be answered, until done reports true.
func (s *Session) Until(done func() bool) error { return s.until(done, s.deadline) }

// For is Until, but it stops after d as well, and then returns no error.
func (s *Session) For(d time.Duration, done func() bool) error {
	by := time.Now().Add(d)
	if by.After(s.deadline) {
		by = s.deadline
	}
	err := s.until(done, by)
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(s.deadline) {
		return nil
	}
	return err
}

func (s *Session) until(done func() bool, by time.Time) error {
	if err := s.Flush(); err != nil {
		// The server may have said why it has closed the connection.
		if readErr := s.read(by); readErr != nil && EndingOf(readErr) == Broken {
			return readErr
		}
		return err
	}
	for !done() {
		if err := s.read(by); err != nil {
			return err
		}
		if err := s.Flush(); err != nil && s.GoAway == nil {
			return err
		}
	}
	return nil
}

// read reads one frame. The time by which it has to begin is by; once it has begun, it may take as long as the session.
func (s *Session) read(by time.Time) error {
	s.c.SetReadDeadline(by)
	if len(s.Settings) == 0 && s.frames == 0 {
		if err := s.recognize(); err != nil {
			return err
		}
	}
	if _, err := s.br.Peek(9); err != nil {
		if s.br.Buffered() > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	s.c.SetReadDeadline(s.deadline)
	f, err := s.fr.ReadFrame()
	if err != nil {
		return s.frameError(err)
	}
	if s.frames++; s.frames > maxFrames {
		return s.fail(FaultFlood, fmt.Sprintf("more than %d frames", maxFrames))
	}
	return s.handle(f)
}

// recognize checks that the first bytes are a frame. Bytes of other protocols are not reported as strange frames.
func (s *Session) recognize() error {
	for n := 1; n <= 9; n++ {
		b, err := s.br.Peek(n)
		b = b[:min(len(b), 9)]
		if len(b) == n && mayBeFrame(b) {
			continue
		}
		if err != nil && len(b) == 0 {
			return err
		}
		if mayBeFrame(b) {
			return io.ErrUnexpectedEOF
		}
		b, _ = s.br.Peek(9) // as much as there is
		foreign := &Foreign{Language: LanguageOf(b)}
		switch foreign.Language {
		case HTTP1:
			foreign.Response, _ = s.c.ReadResponse(s.br, http.MethodGet)
		default:
			s.log.Add(Received, foreign.Language.Words(), string(s.c.Head()))
		}
		return foreign
	}
	return nil
}

// mayBeFrame reports whether b can begin a frame of a size that the client allows, of a known type.
func mayBeFrame(b []byte) bool {
	return (len(b) < 1 || b[0] == 0) && (len(b) < 2 || b[1] <= maxFrameSize>>8) && (len(b) < 4 || b[3] <= 0x20)
}

func (s *Session) violate(f Fault, text string) {
	v := Violation{f, Printable(text)}
	if !slices.Contains(s.Violations, v) && len(s.Violations) < 20 {
		s.Violations = append(s.Violations, v)
		s.log.Note("%s", text)
	}
}

func (s *Session) fail(f Fault, text string) error {
	s.violate(f, text)
	return errFault{f, text}
}

// FaultOf returns the fault that an error of Until or For stands for.
func FaultOf(err error) (Violation, bool) {
	e, ok := errors.AsType[errFault](err)
	return Violation(e), ok
}

func (s *Session) frameError(err error) error {
	if _, ok := errors.AsType[net.Error](err); ok {
		return err
	}
	if e := EndingOf(err); e != Broken {
		return err
	}
	text := err.Error()
	if detail := s.fr.ErrorDetail(); detail != nil {
		text = detail.Error()
	}
	return s.fail(FaultFrame, "a frame that is not allowed: "+text)
}

func (s *Session) handle(f http2.Frame) error {
	h := f.Header()
	if len(s.Settings) == 0 {
		sf, ok := f.(*http2.SettingsFrame)
		if _, goAway := f.(*http2.GoAwayFrame); !goAway && (!ok || sf.IsAck()) {
			s.violate(FaultNotSettings, fmt.Sprintf("the first frame is %v, and not SETTINGS (RFC 9113, Section 3.4)", h.Type))
		}
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return s.settings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			s.Pongs++
			s.log.Add(Received, "PING, ACK")
			return nil
		}
		s.log.Add(Received, "PING")
		s.fr.WritePing(true, f.Data)
		s.log.Add(Sent, "PING, ACK")
	case *http2.HeadersFrame:
		return s.fragment(h, f.HeaderBlockFragment(), f.HeadersEnded(), f.StreamEnded())
	case *http2.ContinuationFrame:
		return s.fragment(h, f.HeaderBlockFragment(), f.HeadersEnded(), s.endStream)
	case *http2.DataFrame:
		return s.data(f)
	case *http2.RSTStreamFrame:
		s.log.Add(Received, fmt.Sprintf("RST_STREAM, stream %d, %v", h.StreamID, f.ErrCode))
		if st := s.stream(h); st != nil {
			st.Reset, st.Code = true, f.ErrCode
		}
	case *http2.GoAwayFrame:
		s.GoAway = &GoAway{Code: f.ErrCode, LastStream: f.LastStreamID, Debug: Printable(string(f.DebugData()))}
		details := []string{fmt.Sprintf("last stream %d", f.LastStreamID)}
		if s.GoAway.Debug != "" {
			details = append(details, "debug data: "+s.GoAway.Debug)
		}
		s.log.Add(Received, fmt.Sprintf("GOAWAY %v", f.ErrCode), details...)
	case *http2.WindowUpdateFrame:
		s.log.Add(Received, fmt.Sprintf("WINDOW_UPDATE, stream %d, %d", h.StreamID, f.Increment))
	default:
		s.log.Add(Received, describe(h))
	}
	return nil
}

// describe names a frame with its flags.
func describe(h http2.FrameHeader) string {
	text := fmt.Sprintf("%v, stream %d", h.Type, h.StreamID)
	switch h.Type {
	case http2.FrameHeaders:
		if h.Flags.Has(http2.FlagHeadersEndStream) {
			text += ", END_STREAM"
		}
	case http2.FrameData:
		if h.Flags.Has(http2.FlagDataEndStream) {
			text += ", END_STREAM"
		}
	}
	return text
}

func (s *Session) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		if s.ACKs++; s.ACKs == 1 {
			s.ACKAt = time.Since(s.began)
		}
		s.log.Add(Received, "SETTINGS, ACK")
		if s.ACKs > s.sent {
			s.violate(FaultExtraACK, "an acknowledgement of SETTINGS that the client has not sent")
		}
		return nil
	}
	frame := SettingsFrame{At: time.Since(s.began)}
	var details []string
	priorities := s.priorities
	f.ForeachSetting(func(v http2.Setting) error {
		if len(frame.Values) < 32 {
			frame.Values = append(frame.Values, v)
		}
		if v.ID == noPriorities {
			priorities = v.Val
		}
		details = append(details, SettingName(v.ID)+fmt.Sprintf(" = %d", v.Val))
		return nil
	})
	s.log.Add(Received, "SETTINGS", details...)
	if len(s.Settings) > 0 && priorities != s.priorities {
		s.violate(FaultPriorities, "SETTINGS_NO_RFC7540_PRIORITIES changes after the first SETTINGS frame (RFC 9218, Section 2.1)")
	}
	s.priorities = priorities
	if len(s.Settings) < 32 {
		s.Settings = append(s.Settings, frame)
	}
	s.fr.WriteSettingsAck()
	s.log.Add(Sent, "SETTINGS, ACK")
	return nil
}

// SettingName returns the name of a setting without SETTINGS_.
func SettingName(id http2.SettingID) string {
	if id == noPriorities {
		return "NO_RFC7540_PRIORITIES"
	}
	return strings.TrimPrefix(id.String(), "SETTINGS_")
}

// stream returns the stream of a frame, or nil, and a violation, if the client has not opened it.
func (s *Session) stream(h http2.FrameHeader) *Stream {
	st := s.streams[h.StreamID]
	if st == nil {
		s.violate(FaultWrongStream, fmt.Sprintf("%v comes on stream %d, which the client has not opened", h.Type, h.StreamID))
	}
	return st
}

func (s *Session) fragment(h http2.FrameHeader, b []byte, end, endStream bool) error {
	if !s.inBlock {
		s.inBlock, s.blockOf, s.endStream = true, s.streams[h.StreamID], endStream
		s.fields, s.fieldBytes = nil, 0
	}
	if _, err := s.dec.Write(b); err != nil {
		return s.blockError(err)
	}
	if s.fieldBytes > maxFieldBytes {
		return s.fail(FaultHeaderList, fmt.Sprintf("a header list of more than %d KiB", maxFieldBytes>>10))
	}
	if !end {
		s.log.Add(Received, describe(h), "the field section goes on")
		return nil
	}
	s.inBlock = false
	if err := s.dec.Close(); err != nil {
		return s.blockError(err)
	}
	lines := make([]string, len(s.fields))
	for i, f := range s.fields {
		lines[i] = f.Name + ": " + f.Value
	}
	s.log.Add(Received, describe(h), lines...)
	s.message(s.blockOf)
	s.stream(h) // is it one of the client's?
	return nil
}

func (s *Session) blockError(err error) error {
	if errors.Is(err, hpack.ErrStringLength) {
		return s.fail(FaultHeaderList, fmt.Sprintf("a field of more than %d KiB", maxFieldLength>>10))
	}
	return s.fail(FaultCompression, "a field block that cannot be decoded: "+err.Error())
}

// field takes a field from the decoder. Of a list that is too large none are kept.
func (s *Session) field(f hpack.HeaderField) {
	if s.fieldBytes += int(f.Size()); s.fieldBytes <= maxFieldBytes {
		s.fields = append(s.fields, f)
	}
}

// message takes a complete header list.
func (s *Session) message(st *Stream) {
	status := ""
	for _, f := range s.fields {
		switch {
		case f.Name == ":status":
			status = f.Value
		case strings.HasPrefix(f.Name, ":"):
			s.violate(FaultFieldName, fmt.Sprintf("%q is not a pseudo-header field of a response (RFC 9113, Section 8.3.2)", f.Name))
		case f.Name == "" || strings.ToLower(f.Name) != f.Name || strings.ContainsAny(f.Name, " :\r\n\x00"):
			s.violate(FaultFieldName, fmt.Sprintf("%q is not a valid field name (RFC 9113, Section 8.2.1)", f.Name))
		}
	}
	if st == nil {
		return
	}
	switch {
	case st.Fields != nil:
		st.Trailers = s.fields
	case len(status) == 3 && status[0] == '1':
		// An interim response says nothing.
	default:
		if status == "" {
			s.violate(FaultNoStatus, "the response has no :status (RFC 9113, Section 8.3.2)")
		} else if len(status) != 3 || status < "200" || status > "599" {
			s.violate(FaultNoStatus, fmt.Sprintf("the response has a :status of %q (RFC 9110, Section 15)", status))
		}
		st.Fields = s.fields
	}
	if s.endStream {
		st.Ended = true
	}
}

func (s *Session) data(f *http2.DataFrame) error {
	h := f.Header()
	s.log.Add(Received, describe(h), fmt.Sprintf("%d bytes: %s", len(f.Data()), firstLine(f.Data())))
	if s.window -= int(h.Length); s.window < 0 {
		return s.fail(FaultWindow, "more DATA than the flow-control window of the connection allows")
	}
	st := s.stream(h)
	if st == nil {
		return nil
	}
	st.received += int(h.Length)
	if room := MaxBody - len(st.Body); room > 0 {
		st.Body = append(st.Body, f.Data()[:min(room, len(f.Data()))]...)
	}
	if f.StreamEnded() {
		st.Ended = true
	}
	if h.Length > 0 {
		// The connection's window stays full, so that one large response does not hold back the next.
		s.fr.WriteWindowUpdate(0, h.Length)
		s.window += int(h.Length)
	}
	if st.received >= MaxBody && !st.Ended && !st.Reset {
		s.fr.WriteRSTStream(st.ID, http2.ErrCodeCancel)
		s.log.Add(Sent, fmt.Sprintf("RST_STREAM, stream %d, CANCEL", st.ID), "enough was seen")
		st.Ended = true
	}
	return nil
}
