package clienthello_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"

	"github.com/oneport-go/oneport/internal/clienthello"
)

const (
	maxPlaintext = 1 << 14
	captures     = "../../testdata/captures/"
)

// outcome is all that a Parser says.
type outcome struct {
	State      clienthello.State
	RecordSeen bool
	Hello      *clienthello.Hello
	Alert      uint8
}

func outcomeOf(p *clienthello.Parser, state clienthello.State) outcome {
	o := outcome{State: state, RecordSeen: p.RecordSeen(), Hello: p.Hello()}
	if err := p.Err(); err != nil {
		o.Alert = err.Alert
	}
	return o
}

// parse parses data at once.
func parse(data []byte) outcome {
	var p clienthello.Parser
	return outcomeOf(&p, p.Parse(data))
}

// parseInSteps parses ever longer prefixes of data, each in a place of its own, and checks that each outcome is that of
// parsing the prefix at once and that a decision stands. It returns the last outcome and the length of the prefix that
// decided, or -1.
func parseInSteps(t *testing.T, data []byte, step int) (last outcome, decided int) {
	t.Helper()
	var p clienthello.Parser
	decided = -1
	for n := 0; ; n = min(n+step, len(data)) {
		prefix := bytes.Clone(data[:n])
		got := outcomeOf(&p, p.Parse(prefix))
		// The previous bytes may be anywhere, or gone, by the next call.
		clear(prefix)
		if want := parse(data[:n]); want != got { // or they only differ in pointers
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("after %d bytes, at once and in steps of %d (-at once +in steps):\n%s", n, step, diff)
			}
		}
		if decided >= 0 {
			if got != last {
				t.Fatalf("decided on %+v after %d bytes, but it is %+v after %d", last, decided, got, n)
			}
		} else if got.State != clienthello.Incomplete {
			decided = n
		}
		last = got
		if n == len(data) {
			return last, decided
		}
	}
}

func readCapture(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(captures + name)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

var tlsCaptures = map[string]*clienthello.Hello{
	"chromium-tls.1.bin": {
		ServerName: "app.example.com",
		ALPN:       []string{"h2", "http/1.1"},
		Versions:   []uint16{0x0304, 0x0303},
		ECH:        true,
	},
	"openssl-tls13.1.bin": {
		ServerName: "api.example.com",
		ALPN:       []string{"h2", "http/1.1"},
		Versions:   []uint16{0x0304, 0x0303, 0x0302, 0x0301},
	},
	"openssl-tls12-noalpn.1.bin": {
		Versions: []uint16{0x0303, 0x0302, 0x0301},
	},
}

func TestCaptures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(captures + "*.bin")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) <= len(tlsCaptures) {
		t.Fatalf("only %d captures", len(files))
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := readCapture(t, name)
			// No other protocol begins with a byte that TLS begins with.
			want, wantDecided := outcome{State: clienthello.NotTLS}, 1
			if hello, ok := tlsCaptures[name]; ok {
				want = outcome{State: clienthello.Complete, RecordSeen: true, Hello: hello}
				wantDecided = len(data)
			}
			got, decided := parseInSteps(t, data, 1)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if decided != wantDecided {
				t.Errorf("decided after %d bytes, want %d", decided, wantDecided)
			}
		})
	}
}

// TestFragmented has every capture in records of every size (RFC 8446, Section 5.1).
func TestFragmented(t *testing.T) {
	t.Parallel()
	for name, hello := range tlsCaptures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			message := readCapture(t, name)[5:]
			want := outcome{State: clienthello.Complete, RecordSeen: true, Hello: hello}
			for size := 1; size <= len(message); size++ {
				data := records(message, size)
				if diff := cmp.Diff(want, parse(append(data, "more"...))); diff != "" {
					t.Fatalf("in records of %d bytes (-want +got):\n%s", size, diff)
				}
				// For prefixes, the sizes around those of the headers will do.
				if size > 10 {
					continue
				}
				// Comparing each of them takes quadratic time.
				step := 1 + len(message)/400
				if _, decided := parseInSteps(t, data, step); decided != len(data) {
					t.Fatalf("in records of %d bytes: decided after %d bytes, want %d", size, decided, len(data))
				}
			}
		})
	}
}

func TestRecordSeen(t *testing.T) {
	t.Parallel()
	data := readCapture(t, "openssl-tls13.1.bin")
	var p clienthello.Parser
	for n := range data {
		p.Parse(data[:n])
		if got, want := p.RecordSeen(), n >= 6; got != want {
			t.Fatalf("after %d bytes: RecordSeen() = %t, want %t", n, got, want)
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	var p clienthello.Parser
	first := readCapture(t, "openssl-tls13.1.bin")
	p.Parse(first)
	hello := p.Hello()
	p.Reset()
	if diff := cmp.Diff(outcome{}, outcomeOf(&p, p.Parse(nil))); diff != "" {
		t.Errorf("after Reset (-want +got):\n%s", diff)
	}
	clear(first)
	p.Parse(records(readCapture(t, "chromium-tls.1.bin")[5:], 100))
	if diff := cmp.Diff(tlsCaptures["openssl-tls13.1.bin"], hello); diff != "" {
		t.Errorf("Hello of the previous connection (-want +got):\n%s", diff)
	}
}

func TestHello(t *testing.T) {
	t.Parallel()
	tls12 := []uint16{0x0303, 0x0302, 0x0301}
	tests := []struct {
		name string
		body []byte
		want clienthello.Hello
	}{
		{"empty extensions", body(0x0303), clienthello.Hello{Versions: tls12}},
		{"no extensions", bytes.TrimSuffix(body(0x0303), []byte{0, 0}), clienthello.Hello{Versions: tls12}},
		{"SSL 3.0", body(0x0300), clienthello.Hello{Versions: []uint16{}}},
		{"TLS 1.0", body(0x0301), clienthello.Hello{Versions: []uint16{0x0301}}},
		{"TLS 1.1", body(0x0302), clienthello.Hello{Versions: []uint16{0x0302, 0x0301}}},
		// RFC 8446, Section 4.2.1.
		{"TLS 1.3 without supported_versions", body(0x0304), clienthello.Hello{Versions: tls12}},
		{"only GREASE versions", body(0x0303, extension(43, "\x02\x4a\x4a")), clienthello.Hello{}},
		{
			"GREASE",
			body(0x0303, extension(0x1a1a, ""), extension(43, "\x08\xfa\xfa\x03\x04\x0a\x0a\x0a\x1a"),
				extension(16, "\x00\x0a\x02\x0a\x0a\x02h2\x03\x0a\x0a\x0a"), extension(0x2a2a, "\x00")),
			clienthello.Hello{Versions: []uint16{0x0304, 0x0a1a}, ALPN: []string{"h2", "\x0a\x0a\x0a"}},
		},
		{
			"server name as sent",
			body(0x0303, extension(0, "\x00\x0e\x00\x00\x0bEXAMPLE.com")),
			clienthello.Hello{ServerName: "EXAMPLE.com", Versions: tls12},
		},
		{
			// RFC 6066 does not permit it, but crypto/tls and others let it pass.
			"server name is an address",
			body(0x0303, extension(0, "\x00\x0c\x00\x00\x09127.0.0.1")),
			clienthello.Hello{ServerName: "127.0.0.1", Versions: tls12},
		},
		{
			"other name types",
			body(0x0303, extension(0, "\x00\x0c\x01\x00\x01a\x00\x00\x01b\x02\x00\x01c")),
			clienthello.Hello{ServerName: "b", Versions: tls12},
		},
		{
			"only other name types",
			body(0x0303, extension(0, "\x00\x04\x01\x00\x01a")),
			clienthello.Hello{Versions: tls12},
		},
		{"inner ECH", body(0x0303, extension(0xfe0d, "\x01")), clienthello.Hello{ECH: true, Versions: tls12}},
		{
			"longest",
			body(0x0303, extension(21, strings.Repeat("\x00", 65479)), extension(0, "\x00\x04\x00\x00\x01a")),
			clienthello.Hello{ServerName: "a", Versions: tls12},
		},
		{
			// What is in the extensions that it does not need is left to the server.
			"malformed key_share",
			body(0x0303, extension(51, "\xff")),
			clienthello.Hello{Versions: tls12},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := records(message(tt.body), maxPlaintext)
			// What follows the ClientHello makes no difference, not even in its record.
			if len(tt.body) < 1000 {
				data = records(append(message(tt.body), "more"...), maxPlaintext)
			}
			want := outcome{State: clienthello.Complete, RecordSeen: true, Hello: &tt.want}
			if diff := cmp.Diff(want, parse(data), equateEmpty); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	const (
		unexpectedMessage = 10
		recordOverflow    = 22
		illegalParameter  = 47
		decodeError       = 50
		internalError     = 80
	)
	var (
		valid    = body(0x0303)
		head     = message(valid)[:20]
		first    = string(records(head, len(head)))
		record   = func(body []byte) string { return string(records(message(body), maxPlaintext)) }
		withExts = func(exts ...string) string { return record(body(0x0303, exts...)) }
	)
	tests := []struct {
		name    string
		data    string
		state   clienthello.State
		alert   uint8
		decided int // 0 means at the end of data
	}{
		{"content type", "\x17\x03\x01\x00\x05", clienthello.NotTLS, 0, 1},
		{"alert first", "\x15\x03\x01\x00\x02\x01\x00" + record(valid), clienthello.NotTLS, 0, 1},
		{"SSL 2.0", "\x80\x2e\x01\x03\x01", clienthello.NotTLS, 0, 1},
		{"major version", "\x16\x02\x01\x00\x05\x01", clienthello.NotTLS, 0, 2},
		{"record too long, high byte", "\x16\x03\x01\x41\x00\x01", clienthello.NotTLS, 0, 4},
		{"record too long, low byte", "\x16\x03\x01\x40\x01\x01", clienthello.NotTLS, 0, 5},
		{"empty record", "\x16\x03\x01\x00\x00\x01", clienthello.NotTLS, 0, 5},
		{"message type", "\x16\x03\x01\x00\x05\x02", clienthello.NotTLS, 0, 6},

		{"second record is an alert", first + "\x15\x03\x03\x00\x02\x01\x00", clienthello.Invalid, unexpectedMessage, len(first) + 1},
		{"second record is application data", first + "\x17", clienthello.Invalid, unexpectedMessage, len(first) + 1},
		{"second record is empty", first + "\x16\x03\x03\x00\x00", clienthello.Invalid, unexpectedMessage, len(first) + 5},
		{"second record too long, high byte", first + "\x16\x03\x03\x41", clienthello.Invalid, recordOverflow, len(first) + 4},
		{"second record too long, low byte", first + "\x16\x03\x03\x40\x01", clienthello.Invalid, recordOverflow, len(first) + 5},

		{"message too long", "\x16\x03\x01\x40\x00\x01\x01\x00\x01more", clienthello.Invalid, internalError, 9},
		{"message too long, header in pieces", "\x16\x03\x01\x00\x02\x01\x01" + "\x16\x03\x01\x00\x04\x00\x01more", clienthello.Invalid, internalError, 14},
		{"empty message", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", clienthello.Invalid, decodeError, 9},
		{"message ends in version", record(valid[:1]), clienthello.Invalid, decodeError, 0},
		{"message ends in random", record(valid[:33]), clienthello.Invalid, decodeError, 0},
		{"message ends in session ID", record(valid[:35]), clienthello.Invalid, decodeError, 0},
		{"message ends in cipher suites", record(valid[:38]), clienthello.Invalid, decodeError, 0},
		{"message ends in compression methods", record(valid[:40]), clienthello.Invalid, decodeError, 0},
		{"half a cipher suite", record([]byte("\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x01c" + "\x01\x00")), clienthello.Invalid, decodeError, 0},
		{"message ends in extensions' length", record(valid[:len(valid)-1]), clienthello.Invalid, decodeError, 0},
		{"bytes after extensions", record(append(bytes.Clone(valid), 0)), clienthello.Invalid, decodeError, 0},
		{"extension ends in type", withExts("\x00"), clienthello.Invalid, decodeError, 0},
		{"extension ends in length", withExts("\x00\x15\x00"), clienthello.Invalid, decodeError, 0},
		{"extension ends in data", withExts("\x00\x15\x00\x02\x00"), clienthello.Invalid, decodeError, 0},

		{"duplicate extension", withExts(extension(21, ""), extension(5, ""), extension(21, "")), clienthello.Invalid, illegalParameter, 0},
		{"duplicate server_name", withExts(extension(0, "\x00\x04\x01\x00\x01a"), extension(0, "\x00\x04\x00\x00\x01a")), clienthello.Invalid, illegalParameter, 0},
		{"duplicate ALPN", withExts(extension(16, "\x00\x02\x01a"), extension(16, "\x00\x02\x01a")), clienthello.Invalid, illegalParameter, 0},

		{"server_name empty", withExts(extension(0, "")), clienthello.Invalid, decodeError, 0},
		{"server_name list empty", withExts(extension(0, "\x00\x00")), clienthello.Invalid, decodeError, 0},
		{"server_name list too short", withExts(extension(0, "\x00\x03\x00\x00\x01a")), clienthello.Invalid, decodeError, 0},
		{"server_name without name", withExts(extension(0, "\x00\x01\x00")), clienthello.Invalid, decodeError, 0},
		{"server_name with empty name", withExts(extension(0, "\x00\x03\x00\x00\x00")), clienthello.Invalid, decodeError, 0},
		{"server_name with empty name of another type", withExts(extension(0, "\x00\x03\x01\x00\x00")), clienthello.Invalid, decodeError, 0},
		{"server_name with bytes after it", withExts(extension(0, "\x00\x04\x00\x00\x01a\x00")), clienthello.Invalid, decodeError, 0},
		{"two server names", withExts(extension(0, "\x00\x08\x00\x00\x01a\x00\x00\x01b")), clienthello.Invalid, illegalParameter, 0},
		{"server name with trailing dot", withExts(extension(0, "\x00\x05\x00\x00\x02a.")), clienthello.Invalid, illegalParameter, 0},

		{"ALPN empty", withExts(extension(16, "")), clienthello.Invalid, decodeError, 0},
		{"ALPN list empty", withExts(extension(16, "\x00\x00")), clienthello.Invalid, decodeError, 0},
		{"ALPN with empty name", withExts(extension(16, "\x00\x01\x00")), clienthello.Invalid, decodeError, 0},
		{"ALPN with name cut short", withExts(extension(16, "\x00\x02\x02a")), clienthello.Invalid, decodeError, 0},
		{"ALPN with bytes after it", withExts(extension(16, "\x00\x02\x01a\x00")), clienthello.Invalid, decodeError, 0},

		{"supported_versions empty", withExts(extension(43, "")), clienthello.Invalid, decodeError, 0},
		{"supported_versions list empty", withExts(extension(43, "\x00")), clienthello.Invalid, decodeError, 0},
		{"supported_versions with half a version", withExts(extension(43, "\x03\x03\x04\x03")), clienthello.Invalid, decodeError, 0},
		{"supported_versions with bytes after it", withExts(extension(43, "\x02\x03\x04\x03")), clienthello.Invalid, decodeError, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.decided == 0 {
				tt.decided = len(tt.data)
			}
			want := outcome{State: tt.state, RecordSeen: tt.state == clienthello.Invalid, Alert: tt.alert}
			got, decided := parseInSteps(t, []byte(tt.data), 1)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if decided != tt.decided {
				t.Errorf("decided after %d bytes, want %d", decided, tt.decided)
			}
		})
	}
}

// TestVersionIgnored has the records after the first give versions that TLS never had, which RFC 8446, Section 5.1,
// wants ignored.
func TestVersionIgnored(t *testing.T) {
	t.Parallel()
	const size = 100
	data := records(readCapture(t, "openssl-tls13.1.bin")[5:], size)
	for i := 5 + size; i < len(data); i += 5 + size {
		data[i+1], data[i+2] = 0xff, 0xff
	}
	want := outcome{State: clienthello.Complete, RecordSeen: true, Hello: tlsCaptures["openssl-tls13.1.bin"]}
	if diff := cmp.Diff(want, parse(data)); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
}

func BenchmarkParse(b *testing.B) {
	whole := readCapture(b, "chromium-tls.1.bin")
	benchmarks := []struct {
		name string
		data []byte
		step int
	}{
		{"at once", whole, len(whole)},
		{"in segments", whole, 1400},
		{"byte by byte", whole, 1},
		{"in records of 100 bytes", records(whole[5:], 100), len(whole) + 1000},
		{"in records of 1 byte, byte by byte", records(whole[5:], 1), 1},
		{"not TLS", []byte("GET / HTTP/1.1\r\n"), 16},
	}
	for _, bb := range benchmarks {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bb.data)))
			var p clienthello.Parser
			for b.Loop() {
				p.Reset()
				for n := min(bb.step, len(bb.data)); p.Parse(bb.data[:n]) == clienthello.Incomplete; n = min(n+bb.step, len(bb.data)) {
				}
			}
		})
	}
}

// body builds the body of a ClientHello with the given extensions.
func body(legacyVersion uint16, extensions ...string) []byte {
	var b cryptobyte.Builder
	b.AddUint16(legacyVersion)
	b.AddBytes(bytes.Repeat([]byte("r"), 32))
	b.AddUint8LengthPrefixed(func(*cryptobyte.Builder) {})
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(0x1301) })
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(strings.Join(extensions, ""))) })
	return b.BytesOrPanic()
}

func extension(typ uint16, data string) string {
	var b cryptobyte.Builder
	b.AddUint16(typ)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(data)) })
	return string(b.BytesOrPanic())
}

// message puts the header of a ClientHello in front of its body.
func message(body []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(1)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(body) })
	return b.BytesOrPanic()
}

// records splits messages over handshake records of the given size.
func records(messages []byte, size int) []byte {
	var b cryptobyte.Builder
	for len(messages) > 0 {
		n := min(size, len(messages))
		b.AddUint8(22)
		b.AddUint16(0x0301)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(messages[:n]) })
		messages = messages[n:]
	}
	return b.BytesOrPanic()
}
