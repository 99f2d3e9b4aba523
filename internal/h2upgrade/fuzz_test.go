package h2upgrade

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/oneport-go/oneport/internal/h2"
	"github.com/oneport-go/oneport/internal/http1"
)

// FuzzCheck holds what becomes of a request's header to what net/http reads in it.
func FuzzCheck(f *testing.F) {
	for _, name := range captures {
		f.Add(capture(f, name))
	}
	for _, s := range []string{
		upgrade(),
		upgrade("Connection: x-a", "X-A: 1", "X-B: 2\r\n 3", "TE: trailers", "Content-Length: 2") + "hi",
		strings.Replace(upgrade("Cookie: a=b"), "GET /p?q", "OPTIONS http://b.example", 1),
		strings.Replace(upgrade("Content-Length: 2", "Content-Length: 2"), "/p?q", "http://b.example?q", 1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p http1.Parser
		if p.Parse(data) != http1.Complete {
			return
		}
		r, err := Check(data, &p)
		if err != nil {
			return
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			if _, ok := errors.AsType[*url.Error](err); ok {
				return // malformed percent-encoding, which the server gets to see
			}
			t.Fatalf("upgraded, but net/http does not take it: %v", err)
		}
		compareHeader(t, r, req, data)
		if int64(r.ContentLen()) != req.ContentLength {
			t.Errorf("content of %d bytes, net/http says %d", r.ContentLen(), req.ContentLength)
		}
	})
}

func compareHeader(t *testing.T, r *Request, req *http.Request, data []byte) {
	t.Helper()
	got := make(http.Header)
	pseudo := make(map[string]string)
	for i, f := range r.Fields() {
		if (f.Name[0] == ':') != (i < 4) {
			t.Errorf("field %d is %v", i, f)
		}
		if f.Name != strings.ToLower(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			t.Errorf("HTTP/2 permits no such field: %v", f)
		}
		if f.Name[0] == ':' {
			pseudo[f.Name] = f.Value
		} else {
			got.Add(f.Name, f.Value)
		}
	}
	host := withoutFold(req.Host)
	wantPseudo := map[string]string{":method": req.Method, ":scheme": "http", ":authority": host, ":path": req.RequestURI}
	if target := req.RequestURI; target[0] != '/' && target != "*" {
		u := *req.URL
		if u.Path == "" && u.RawQuery == "" && !u.ForceQuery && req.Method == "OPTIONS" {
			wantPseudo[":path"] = "*"
		} else {
			_, path, _ := strings.Cut(target, "://")
			path = strings.TrimPrefix(path, req.Host)
			if !strings.HasPrefix(path, "/") {
				path = "/" + path
			}
			wantPseudo[":path"] = path
		}
	}
	if diff := cmp.Diff(wantPseudo, pseudo); diff != "" {
		t.Error(diff)
	}

	// net/http removes some fields from the header that it returns, so what it reads the header with is asked too.
	tr := textproto.NewReader(bufio.NewReader(bytes.NewReader(data)))
	tr.ReadLine()
	all, err := tr.ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header(all).Clone()
	for _, value := range all["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.TrimString(name); !strings.EqualFold(name, "content-length") {
				want.Del(name)
			}
		}
	}
	for _, name := range []string{"Connection", "Upgrade", "Http2-Settings", "Host", "Keep-Alive", "Proxy-Connection", "Te"} {
		want.Del(name)
	}
	if httpguts.HeaderValuesContainsToken(all["Te"], "trailers") {
		want.Set("Te", "trailers")
	}
	if v := want["Content-Length"]; len(v) > 1 {
		want["Content-Length"] = v[:1]
	}
	for _, values := range want {
		for i, v := range values {
			values[i] = withoutFold(v)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// withoutFold takes away the space that net/textproto has at the end of a value that ends in an empty obs-fold, where
// RFC 9112, Section 5.1 has none.
func withoutFold(value string) string { return strings.Trim(value, " ") }

// FuzzParse holds the flight behind a request to the frame reader of golang.org/x/net, and an answer on the whole to
// the answers on its parts.
func FuzzParse(f *testing.F) {
	f.Add([]byte{}, flight(clientSettings...), uint16(30))
	f.Add([]byte(`{"name":"x"}`), append(flight(), "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01"...), uint16(3))
	f.Add(make([]byte, 20000), []byte("GET / HTTP/1.1\r\n"), uint16(20001))
	f.Add([]byte("x"), h2.AppendSettingsACK([]byte(h2.Preface)), uint16(1))
	f.Fuzz(func(t *testing.T, content, flight []byte, split uint16) {
		if len(content) > MaxContent {
			return
		}
		settings := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 100}} // of the request
		data := append([]byte(upgrade("Content-Length: "+strconv.Itoa(len(content)))), content...)
		requestLen := len(data)
		data = append(data, flight...)

		whole := mustCheck(t, data)
		state, err := whole.Parse(data)
		parts := mustCheck(t, data)
		partState, partErr := parts.Parse(bytes.Clone(data[:min(int(split), len(data))]))
		if partState == h2.Incomplete {
			partState, partErr = parts.Parse(data)
		}
		if partState != state || !cmp.Equal(partErr, err) {
			t.Errorf("%v, %v in parts, %v, %v on the whole", partState, partErr, state, err)
		}
		if state == h2.Incomplete && len(data) >= whole.MaxLen() {
			t.Errorf("%v after %d bytes, and MaxLen is %d", state, len(data), whole.MaxLen())
		}
		if (state == h2.Error) != (err != nil) {
			t.Fatalf("%v with the error %v", state, err)
		}

		frames, ok := bytes.CutPrefix(flight, []byte(h2.Preface))
		if !ok {
			want := h2.Error
			if strings.HasPrefix(h2.Preface, string(flight)) {
				want = h2.Incomplete
			}
			if state != want {
				t.Errorf("%v, want %v", state, want)
			}
			return
		}
		src := bytes.NewReader(frames)
		fr := http2.NewFramer(io.Discard, src)
		fr.SetMaxReadFrameSize(h2.DefaultMaxFrameSize)
		frame, readErr := fr.ReadFrame()
		sf, isSettings := frame.(*http2.SettingsFrame)
		valid := readErr == nil && isSettings && !sf.IsAck() && sf.ForeachSetting(http2.Setting.Valid) == nil
		if valid {
			sf.ForeachSetting(func(s http2.Setting) error { settings = set(settings, s); return nil })
		}
		if state != h2.Complete {
			if valid && !extended(settings) {
				t.Errorf("%v, %v, but the frame reader takes it", state, err)
			}
			return
		}
		if !valid {
			t.Fatalf("%v, but the frame reader does not take it: %v, %v", state, frame, readErr)
		}
		first, rest := whole.Translate(nil, data)
		if want := len(data) - src.Len(); rest != want {
			t.Errorf("the rest begins at %d, want %d of %d, behind a request of %d", rest, want, len(data), requestLen)
		}
		got := read(t, first)
		if got.Content != string(content) {
			t.Error("the content has changed")
		}
		const most = 32 // of which a server can know some
		if diff := cmp.Diff(settings[:min(len(settings), most)], got.Settings); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(whole.Fields(), got.Fields); diff != "" {
			t.Error(diff)
		}
	})
}

// set sets one of the settings, each of which is there once.
func set(settings []http2.Setting, s http2.Setting) []http2.Setting {
	for i := range settings {
		if settings[i].ID == s.ID {
			settings[i] = s
			return settings
		}
	}
	return append(settings, s)
}

// extended reports whether a setting has a bad value that [http2.Setting.Valid] knows nothing of.
func extended(settings []http2.Setting) bool {
	for _, s := range settings {
		if (s.ID == http2.SettingEnableConnectProtocol || s.ID == http2.SettingNoRFC7540Priorities) && s.Val > 1 {
			return true
		}
	}
	return false
}

// FuzzAppendField holds the encoder to the decoder of golang.org/x/net.
func FuzzAppendField(f *testing.F) {
	for _, n := range []int{0, 1, 126, 127, 128, 254, 255, 16510, 16511, 1 << 20} {
		f.Add("name", strings.Repeat("v", n), n%2 == 0)
	}
	f.Fuzz(func(t *testing.T, name, value string, sensitive bool) {
		want := hpack.HeaderField{Name: name, Value: value, Sensitive: sensitive}
		got, err := hpack.NewDecoder(4096, nil).DecodeFull(appendField(nil, want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]hpack.HeaderField{want}, got); diff != "" {
			t.Error(diff)
		}
	})
}
