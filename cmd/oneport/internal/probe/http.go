package probe

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

const userAgent = "oneport-probe"

func (a *attempt) scheme() string {
	if a.r.TLS != nil {
		return "https"
	}
	return "http"
}

// http1 makes a request of HTTP/1.1.
func (a *attempt) http1(c *wire.Conn) {
	a.http1Request(c, wire.Request{Method: "GET", Path: a.Path, Proto: "HTTP/1.1", Fields: [][2]string{
		{"Host", a.Host}, {"User-Agent", userAgent}, {"Accept", "*/*"},
	}})
}

// http10 makes a request as the health checks of balancers do, without Host.
func (a *attempt) http10(c *wire.Conn) {
	a.http1Request(c, wire.Request{Method: "GET", Path: a.Path, Proto: "HTTP/1.0"})
	usual, got := a.result("http1").HTTP, a.r.HTTP
	if a.r.Verdict == Works && got.Status >= 400 && usual != nil && usual.Status < 400 {
		a.say(Refused, Declined, "%d %s, where HTTP/1.1 gets %d", got.Status, got.Reason, usual.Status)
	}
}

func (a *attempt) http1Request(c *wire.Conn, r wire.Request) {
	res := a.http1Exchange(c, bufio.NewReader(c), r)
	if res == nil {
		return
	}
	a.judgeStatus(res.StatusCode, statusText(res))
	a.finish(c)
}

// http1Exchange sends a request and reads the response, which is nil if that has failed.
func (a *attempt) http1Exchange(c *wire.Conn, br *bufio.Reader, r wire.Request) *wire.Response {
	if err := c.SendRequest(r); err != nil {
		a.failed(c, err, "")
		return nil
	}
	for {
		if err := expectHTTP1(c, br); err != nil {
			a.failed(c, err, "")
			return nil
		}
		a.r.Language = wire.HTTP1
		res, err := c.ReadResponse(br, r.Method)
		a.firstByte(c)
		if res == nil {
			a.failed(c, err, "the start of a response")
			return nil
		}
		if res.StatusCode < 200 && res.StatusCode != 101 {
			continue // interim
		}
		a.r.HTTP = httpFacts(res)
		if err != nil {
			a.failed(c, err, strconv.Itoa(res.StatusCode)+", a part of the content")
			return nil
		}
		return res
	}
}

// judgeStatus sets the result by the status of an ordinary request.
func (a *attempt) judgeStatus(status int, text string) {
	h := a.r.HTTP
	switch {
	case h.FromGRPC():
		a.say(Works, OK, "%s, from a gRPC server", text)
	case status == 101:
		a.say(Fails, Declined, "%s, which nobody asked for", text)
	case status == 400:
		said := saying(h.Start)
		if strings.TrimPrefix(said, ": ") == text {
			said = ""
		}
		a.say(Refused, Declined, "%s%s", text, said)
	case status == 502, status == 503, status == 504:
		a.say(WorksBut, OK, "%s, as from a proxy without a server behind it", text)
	case status >= 500:
		a.say(WorksBut, OK, "%s", text)
	case h.Location != "":
		a.say(Works, OK, "%s, to %s", text, h.Location)
	default:
		a.say(Works, OK, "%s", text)
	}
}

// saying quotes the start of a content, if it is a short text.
func saying(s string) string {
	if s == "" || len(s) > 80 || strings.HasPrefix(s, "<") {
		return ""
	}
	return ": " + s
}

// FromGRPC reports whether a gRPC server has answered.
func (h *HTTP) FromGRPC() bool {
	return h != nil && strings.HasPrefix(h.ContentType, "application/grpc") && !strings.HasPrefix(h.ContentType, "application/grpc-web")
}

// finish ends the client's side, and sees how the server ends its own.
func (a *attempt) finish(c *wire.Conn) {
	c.CloseWrite()
	a.r.End = c.Linger(min(a.Linger, time.Until(a.deadline)))
	a.log.Note("after the client closed its side: %s", a.r.End.Words())
}

// get is the header list of a request.
func (a *attempt) get(path string) []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: a.scheme()},
		{Name: ":authority", Value: a.Host}, {Name: ":path", Value: path},
		{Name: "user-agent", Value: userAgent}, {Name: "accept", Value: "*/*"},
	}
}

// The ways in which HTTP/2 is begun.
type opening uint8

const (
	atOnce opening = iota // the request follows the preface
	strict                // the server's SETTINGS are waited for, as gRPC clients do
	idle                  // the same, and then nothing for a while
)

func (a *attempt) http2AtOnce(c *wire.Conn) { a.http2(c, atOnce) }
func (a *attempt) http2Strict(c *wire.Conn) { a.http2(c, strict) }
func (a *attempt) http2Idle(c *wire.Conn)   { a.http2(c, idle) }

// http2 makes two requests over HTTP/2. If a mux has sent SETTINGS in the server's place, the second one may fail.
func (a *attempt) http2(c *wire.Conn, how opening) {
	if how == idle {
		a.deadline = a.deadline.Add(a.Idle) // the time that it rests is not the server's
		c.SetDeadline(a.deadline)
	}
	s := a.session(c, bufio.NewReader(c))
	defer a.keep(c, s)
	if how != atOnce && !a.await(c, s) {
		return
	}
	quiet := ""
	if how == idle {
		var ok bool
		if quiet, ok = a.rest(c, s); !ok {
			return
		}
	}
	asked := time.Now()
	st, ok := a.ask(c, s, nil, a.get(a.Path))
	if !ok {
		return
	}
	a.r.HTTP2.First = true
	a.r.HTTP = streamFacts(st)
	status := a.r.HTTP.Status
	var err error
	answered := true
	if a.timeFor(asked) {
		again := s.Request(nil, a.get(a.Path)...)
		err = s.Until(func() bool { return again.Done() || s.GoAway != nil })
		answered = again.Done()
		a.r.HTTP2.Second = answered
	}
	switch {
	case s.GoAway != nil && s.GoAway.Code != http2.ErrCodeNo:
		a.wentAway(s)
	case len(s.Violations) > 0:
		a.say(Fails, Violated, "%s", s.Violations[0].Text)
	case answered || s.GoAway != nil:
		a.judgeStatus(status, strconv.Itoa(status))
		if quiet != "" && a.r.Verdict == Works {
			a.say(WorksBut, OK, "%d, but %s", status, quiet)
		}
	default:
		a.failed(c, err, fmt.Sprintf("%d, and to a second request nothing", status))
	}
	a.depart(c, s)
}

// session begins HTTP/2 with the preface, on a connection of which r reads the rest.
func (a *attempt) session(c *wire.Conn, r *bufio.Reader) *wire.Session {
	s := wire.NewSession(c, r, a.deadline)
	a.r.HTTP2 = new(HTTP2)
	s.Preface()
	return s
}

// depart ends HTTP/2 as clients do that have had no error.
func (a *attempt) depart(c *wire.Conn, s *wire.Session) {
	a.settle(s)
	s.Goodbye()
	s.Flush()
	a.finish(c)
}

// await waits for the server's SETTINGS.
func (a *attempt) await(c *wire.Conn, s *wire.Session) bool {
	err := s.Until(func() bool { return len(s.Settings) > 0 || s.GoAway != nil || len(s.Violations) > 0 })
	_, fatal := wire.FaultOf(err)
	switch {
	case fatal:
		a.failed(c, err, "")
	case s.GoAway != nil:
		a.wentAway(s)
	case len(s.Violations) > 0:
		a.say(Fails, Violated, "%s", s.Violations[0].Text)
	case err != nil:
		a.failed(c, err, "")
	default:
		return true
	}
	return false
}

// rest stays idle for a while, and sends a PING in the middle. It returns which acknowledgements did not arrive.
func (a *attempt) rest(c *wire.Conn, s *wire.Session) (missing string, ok bool) {
	began := time.Now()
	over := func() bool { return s.GoAway != nil }
	a.log.Note("no request for %s", Seconds(a.Idle))
	err := s.For(a.Idle/2, over)
	if err == nil && !over() {
		s.Ping()
		err = s.For(a.Idle/2, over)
	}
	a.step("idle", began)
	a.r.HTTP2.Pong = s.Pongs > 0
	switch {
	case s.GoAway != nil && s.GoAway.Code == http2.ErrCodeNo:
		a.say(WorksBut, WentAway, "GOAWAY NO_ERROR after %s without a request%s", Seconds(time.Since(began).Round(100*time.Millisecond)), saying(s.GoAway.Debug))
		return "", false
	case s.GoAway != nil:
		a.wentAway(s)
		return "", false
	case err != nil:
		a.failed(c, err, "SETTINGS")
		return "", false
	case s.ACKs == 0 && s.Pongs == 0:
		return "SETTINGS and PING were not acknowledged before", true
	case s.ACKs == 0:
		return "SETTINGS were not acknowledged before", true
	case s.Pongs == 0:
		return "PING was not acknowledged before", true
	}
	return "", true
}

// ask makes a request and waits for the answer. It retries a request that the server has refused without processing it,
// as clients do (RFC 9113, Section 8.7): proxies refuse requests in this way when a connection to their backend has
// just ended.
func (a *attempt) ask(c *wire.Conn, s *wire.Session, body []byte, fields []hpack.HeaderField) (*wire.Stream, bool) {
	st := s.Request(body, fields...)
	ok := a.answer(c, s, st)
	if !ok && st.Reset && st.Code == http2.ErrCodeRefusedStream && s.GoAway == nil {
		a.log.Note("REFUSED_STREAM says that the request was not processed: once more")
		a.r.HTTP2.Reset = http2.ErrCodeNo
		st = s.Request(body, fields...)
		ok = a.answer(c, s, st)
	}
	return st, ok
}

// answer waits for the answer to a request.
func (a *attempt) answer(c *wire.Conn, s *wire.Session, st *wire.Stream) bool {
	gone := func() bool {
		return s.GoAway != nil && (s.GoAway.Code != http2.ErrCodeNo || s.GoAway.LastStream < st.ID)
	}
	err := s.Until(func() bool { return st.Done() || gone() || mute(s) })
	_, fatal := wire.FaultOf(err)
	switch {
	case fatal:
		a.failed(c, err, "")
	case st.Ended && st.Fields != nil:
		return true
	case st.Reset:
		a.r.HTTP2.Reset = st.Code
		a.say(Refused, StreamReset, "RST_STREAM %v", st.Code)
	case gone():
		a.wentAway(s)
	case len(s.Violations) > 0:
		a.say(Fails, Violated, "%s", s.Violations[0].Text)
	case st.Ended:
		a.say(Fails, Violated, "the end of the stream without a response")
	case err != nil:
		so := ""
		if len(s.Settings) > 0 {
			so = "SETTINGS"
		}
		if st.Fields != nil {
			so = st.Field(":status") + ", a part of the content"
		}
		a.failed(c, err, so)
	}
	return false
}

// mute reports whether the server has violated HTTP/2 in a way after which no answer can be expected.
func mute(s *wire.Session) bool {
	for _, v := range s.Violations {
		switch v.Fault {
		case wire.FaultWrongStream, wire.FaultFieldName, wire.FaultNoStatus, wire.FaultNotSettings:
			return true
		}
	}
	return false
}

// wentAway sets the result by GOAWAY.
func (a *attempt) wentAway(s *wire.Session) {
	v := Fails
	if s.GoAway.Debug != "" || s.GoAway.Code == http2.ErrCodeNo {
		v = Refused
	}
	a.log.Note("the server ends the connection")
	a.say(v, WentAway, "GOAWAY %v%s", s.GoAway.Code, saying(s.GoAway.Debug))
	if len(s.Settings) > 1 && s.GoAway.Code == http2.ErrCodeProtocol {
		a.log.Note("two SETTINGS frames arrived, and each has to be acknowledged: " +
			"a server that sent only one of them treats the other acknowledgement as an error")
		a.say(Fails, WentAway, "GOAWAY PROTOCOL_ERROR, after two SETTINGS frames")
	}
}

// settle gives the server a moment to acknowledge the client's SETTINGS.
func (a *attempt) settle(s *wire.Session) {
	if s.GoAway == nil {
		s.For(a.Linger, func() bool { return s.ACKs > 0 || s.GoAway != nil })
	}
	if s.ACKs == 0 && s.GoAway == nil {
		v := wire.Violation{Fault: wire.FaultNoACK, Text: "SETTINGS are not acknowledged (RFC 9113, Section 6.5.3)"}
		a.log.Note("%s", v.Text)
		a.r.HTTP2.Violations = append(a.r.HTTP2.Violations, v)
		if a.r.Verdict == Works {
			a.say(WorksBut, OK, "%s, but SETTINGS are not acknowledged", a.r.Came)
		}
	}
}

// keep records what was seen of the connection.
func (a *attempt) keep(c *wire.Conn, s *wire.Session) {
	a.firstByte(c)
	h := a.r.HTTP2
	h.Settings, h.ACKed, h.ACKAt, h.GoAway = s.Settings, s.ACKs > 0, s.ACKAt, s.GoAway
	h.Violations = append(s.Violations, h.Violations...)
}

func streamFacts(st *wire.Stream) *HTTP {
	status, _ := strconv.Atoi(st.Field(":status"))
	start, _, _ := strings.Cut(strings.TrimSpace(string(st.Body)), "\n")
	return &HTTP{
		Proto: "HTTP/2.0", Status: status, Server: wire.Printable(st.Field("server")),
		ContentType: wire.Printable(st.Field("content-type")), Location: wire.Printable(st.Field("location")),
		Start: wire.Printable(start),
	}
}

// upgradeGET asks for HTTP/2 by a GET.
func (a *attempt) upgradeGET(c *wire.Conn) { a.upgrade(c, "GET") }

// upgradeOPTIONS asks for it by an OPTIONS, as clients do that want to know first whether it works.
func (a *attempt) upgradeOPTIONS(c *wire.Conn) { a.upgrade(c, "OPTIONS") }

func (a *attempt) upgrade(c *wire.Conn, method string) {
	br := bufio.NewReader(c)
	settings := base64.RawURLEncoding.EncodeToString([]byte{0, byte(http2.SettingEnablePush), 0, 0, 0, 0})
	res := a.http1Exchange(c, br, wire.Request{Method: method, Path: a.Path, Proto: "HTTP/1.1", Fields: [][2]string{
		{"Host", a.Host}, {"User-Agent", userAgent},
		{"Connection", "Upgrade, HTTP2-Settings"}, {"Upgrade", "h2c"}, {"HTTP2-Settings", settings},
	}})
	if res == nil {
		return
	}
	if res.StatusCode != 101 {
		a.say(NotOffered, Declined, "stays HTTP/1.1, which is allowed: %d", res.StatusCode)
		a.finish(c)
		return
	}
	s := a.session(c, br)
	defer a.keep(c, s)
	st := s.Open()
	if !a.answer(c, s, st) {
		a.r.Came = "101, then " + a.r.Came
		return
	}
	a.r.HTTP2.First = true
	a.r.HTTP = streamFacts(st)
	again, ok := a.ask(c, s, nil, a.get(a.Path))
	if !ok {
		a.r.Came = "101, an answer, then " + a.r.Came
		return
	}
	a.r.HTTP2.Second = true
	a.r.HTTP = streamFacts(again)
	a.judgeStatus(a.r.HTTP.Status, fmt.Sprintf("101, then %d over HTTP/2", a.r.HTTP.Status))
	a.depart(c, s)
}
