package clienthello_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/crypto/cryptobyte"

	"github.com/oneport-go/oneport/internal/clienthello"
)

var equateEmpty = cmpopts.EquateEmpty()

// wire is a connection whose peer sent certain bytes, closed its side and discards what it is sent.
type wire struct {
	net.Conn // for the methods crypto/tls does not call
	received *bytes.Reader
}

func (w wire) Read(b []byte) (int, error)  { return w.received.Read(b) }
func (w wire) Write(b []byte) (int, error) { return len(b), nil }

// serverSees returns what a crypto/tls server makes of data, or nil if it does not accept the ClientHello.
func serverSees(data []byte) *tls.ClientHelloInfo {
	var info *tls.ClientHelloInfo
	server := tls.Server(wire{received: bytes.NewReader(data)}, &tls.Config{
		GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
			info = chi
			return nil, errors.New("seen enough")
		},
	})
	// It cannot succeed; GetConfigForClient has told all there is to know.
	_ = server.Handshake()
	return info
}

const (
	extensionECH = 0xfe0d
	disguisedECH = 0x3fff // unassigned
)

// helloFromInfo returns the Hello that should come of a ClientHello that a crypto/tls server accepted, with ECH in an
// extension of type ech.
func helloFromInfo(info *tls.ClientHelloInfo, ech uint16) *clienthello.Hello {
	h := &clienthello.Hello{
		ServerName: info.ServerName,
		ECH:        slices.Contains(info.Extensions, ech),
	}
	for _, proto := range info.SupportedProtos {
		if !greaseProtos[proto] {
			h.ALPN = append(h.ALPN, proto)
		}
	}
	listed := slices.Contains(info.Extensions, 43)
	for _, version := range info.SupportedVersions {
		// ClientHelloInfo has TLS 1.3 if legacy_version does, but without supported_versions not even crypto/tls
		// negotiates it.
		if !greaseVersions[version] && (listed || version != tls.VersionTLS13) {
			h.Versions = append(h.Versions, version)
		}
	}
	return h
}

// The tables of RFC 8701, Section 2.
var (
	greaseVersions = map[uint16]bool{
		0x0a0a: true, 0x1a1a: true, 0x2a2a: true, 0x3a3a: true,
		0x4a4a: true, 0x5a5a: true, 0x6a6a: true, 0x7a7a: true,
		0x8a8a: true, 0x9a9a: true, 0xaaaa: true, 0xbaba: true,
		0xcaca: true, 0xdada: true, 0xeaea: true, 0xfafa: true,
	}
	greaseProtos = map[string]bool{
		"\x0a\x0a": true, "\x1a\x1a": true, "\x2a\x2a": true, "\x3a\x3a": true,
		"\x4a\x4a": true, "\x5a\x5a": true, "\x6a\x6a": true, "\x7a\x7a": true,
		"\x8a\x8a": true, "\x9a\x9a": true, "\xaa\xaa": true, "\xba\xba": true,
		"\xca\xca": true, "\xda\xda": true, "\xea\xea": true, "\xfa\xfa": true,
	}
)

// checkAgainstServer checks the parser's outcome on data against crypto/tls.
func checkAgainstServer(t *testing.T, data []byte) {
	t.Helper()
	got, info := parse(data), serverSees(data)
	switch got.State {
	case clienthello.Complete:
		ech := uint16(extensionECH)
		if info == nil {
			info, ech = serverSees(undemanding(t, data)), disguisedECH
		}
		if info == nil {
			t.Fatal("Complete, but crypto/tls does not accept it")
		}
		if diff := cmp.Diff(helloFromInfo(info, ech), got.Hello, equateEmpty); diff != "" {
			t.Fatalf("Hello (-crypto/tls +got):\n%s", diff)
		}
	default:
		if info != nil && !knownStricter(data, got.State) {
			t.Fatalf("%v, but crypto/tls accepts it", got.State)
		}
	}
}

// undemanding rewrites data, which starts with a Complete ClientHello, to leave out the three things that crypto/tls
// looks at before GetConfigForClient and the parser does not:
//
//   - the contents of extensions that do not matter for routing, among them ECH,
//     and that pre_shared_key is the last: their types become unassigned ones;
//   - the versions of the records after the first, which RFC 8446, Section 5.1,
//     has ignored;
//   - the rest of the ClientHello's last record, whole or not.
func undemanding(t *testing.T, data []byte) []byte {
	t.Helper()
	var msg []byte
	for in := cryptobyte.String(data); len(msg) < 4 || len(msg) < 4+int(msg[1])<<16+int(msg[2])<<8+int(msg[3]); {
		var length uint16
		if !in.Skip(3) || !in.ReadUint16(&length) {
			t.Fatal("Complete, but it is not")
		}
		var fragment []byte
		in.ReadBytes(&fragment, min(int(length), len(in)))
		msg = append(msg, fragment...)
	}

	var (
		size, vector cryptobyte.String
		in           = cryptobyte.String(msg)
	)
	if !in.Skip(1) || !in.ReadUint24LengthPrefixed(&size) {
		t.Fatal("Complete, but it is not")
	}
	in = size
	in.Skip(34)
	in.ReadUint8LengthPrefixed(&vector)
	in.ReadUint16LengthPrefixed(&vector)
	in.ReadUint8LengthPrefixed(&vector)
	msg = msg[:4+len(size)]
	in.Skip(2)

	types := map[uint16]uint16{0: 0, 16: 16, 43: 43, extensionECH: disguisedECH}
	for len(in) > 0 {
		var (
			typ  uint16
			at   = len(msg) - len(in)
			data cryptobyte.String
		)
		if !in.ReadUint16(&typ) || !in.ReadUint16LengthPrefixed(&data) {
			t.Fatal("Complete, but it is not")
		}
		// The same type stays the same, for duplicates to remain duplicates.
		replacement, ok := types[typ]
		if !ok {
			replacement = 0x4000 + uint16(len(types))
			types[typ] = replacement
		}
		msg[at], msg[at+1] = byte(replacement>>8), byte(replacement)
	}
	return records(msg, maxPlaintext)
}

// knownStricter reports whether data is among what crypto/tls accepts and the parser does not:
//
//   - a record_version with a major version below 3, or from 4 to 15;
//   - warning alerts before the ClientHello or between its records. RFC 8446,
//     Section 5.1, forbids the latter, and no client has a reason to send any.
func knownStricter(data []byte, state clienthello.State) bool {
	decided := sort.Search(len(data), func(n int) bool { return parse(data[:n]).State == state })
	last := data[decided-1]
	return decided == 2 && last != 3 || last == 21 && (decided == 1 || state == clienthello.Invalid)
}

// clientHello returns what a crypto/tls client sends first.
func clientHello(tb testing.TB, config *tls.Config) []byte {
	tb.Helper()
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		// The error is that nobody answers.
		_ = tls.Client(client, config).Handshake()
	}()
	defer server.Close()

	header := make([]byte, 5)
	var p clienthello.Parser
	var data []byte
	for p.Parse(data) == clienthello.Incomplete {
		n, err := server.Read(header)
		if err != nil {
			tb.Fatal(err)
		}
		data = append(data, header[:n]...)
	}
	return data
}

var clientConfigs = map[string]*tls.Config{
	"default":        {ServerName: "www.example.com"},
	"no name":        {InsecureSkipVerify: true},
	"address":        {ServerName: "192.0.2.1"},
	"address in []":  {ServerName: "[2001:db8::1]"},
	"trailing dot":   {ServerName: "www.example.com."},
	"upper case":     {ServerName: "WWW.Example.COM"},
	"longest name":   {ServerName: strings.Repeat("a.", 126) + "b"},
	"h2":             {ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}},
	"one protocol":   {ServerName: "www.example.com", NextProtos: []string{"acme-tls/1"}},
	"GREASE":         {ServerName: "www.example.com", NextProtos: []string{"\x5a\x5a", "h2", "\xfa\xfa", "\x5a\x6a"}},
	"many protocols": {ServerName: "www.example.com", NextProtos: slices.Repeat([]string{strings.Repeat("p", 255)}, 200)},
	"TLS 1.0":        {ServerName: "www.example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
	"TLS 1.1":        {ServerName: "www.example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
	"TLS 1.2":        {ServerName: "www.example.com", MaxVersion: tls.VersionTLS12},
	"TLS 1.3":        {ServerName: "www.example.com", MinVersion: tls.VersionTLS13},
	"all versions":   {ServerName: "www.example.com", MinVersion: tls.VersionTLS10},
}

func TestClients(t *testing.T) {
	t.Parallel()
	for name, config := range clientConfigs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := clientHello(t, config)
			info := serverSees(data)
			if info == nil {
				t.Fatal("crypto/tls does not accept its own ClientHello")
			}
			want := outcome{State: clienthello.Complete, RecordSeen: true, Hello: helloFromInfo(info, extensionECH)}
			if diff := cmp.Diff(want, parse(data), equateEmpty); diff != "" {
				t.Errorf("outcome (-crypto/tls +got):\n%s", diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for name := range tlsCaptures {
		f.Add(readCapture(f, name), uint8(100))
	}
	f.Add(readCapture(f, "curl-http1.1.bin"), uint8(1))
	for _, config := range clientConfigs {
		data := clientHello(f, config)
		if len(data) > 4000 {
			continue
		}
		f.Add(data, uint8(200))
		f.Add(records(data[5:], 50), uint8(13))
	}
	f.Add([]byte("\x15\x03\x01\x00\x02\x01\x00"+string(records(message(body(0x0303)), 7))), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		parseInSteps(t, data, 1+int(step))
		checkAgainstServer(t, data)
	})
}

// FuzzExtensions gets past the headers that FuzzParse seldom leaves intact.
func FuzzExtensions(f *testing.F) {
	f.Add(uint16(0x0303), []byte{}, uint16(1))
	for name := range tlsCaptures {
		data := readCapture(f, name)
		for at := range data {
			// The extensions are the last vector, so their length is the first uint16 to give exactly what follows it.
			if at+2 < len(data) && int(data[at])<<8|int(data[at+1]) == len(data)-at-2 && at > 5 {
				f.Add(uint16(0x0303), data[at+2:], uint16(300))
				break
			}
		}
	}
	f.Add(uint16(0x0301), []byte(extension(0, "\x00\x08\x00\x00\x01a\x00\x00\x01b")), uint16(9))
	f.Add(uint16(0x0304), []byte(extension(0xfe0d, "\x01")+extension(41, "")+extension(51, "")), uint16(9))
	f.Fuzz(func(t *testing.T, legacyVersion uint16, extensions []byte, size uint16) {
		if len(extensions) > 0xffff {
			t.Skip("does not fit")
		}
		checkAgainstServer(t, records(message(body(legacyVersion, string(extensions))), 1+int(size)%maxPlaintext))
	})
}
