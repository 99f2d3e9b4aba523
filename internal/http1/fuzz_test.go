package http1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oneport-go/oneport/internal/http1"
	"golang.org/x/net/http/httpguts"
)

// readRequest reads a request as the server of net/http does, except that it does not mind a missing or malformed Host.
func readRequest(data []byte) (*http.Request, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		return nil, err
	}
	if req.ProtoMajor != 1 {
		return nil, fmt.Errorf("unsupported protocol version %s", req.Proto)
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("invalid header name %q", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, fmt.Errorf("invalid header value %q", v)
			}
		}
	}
	return req, nil
}

// readHeader reads the field lines with the package that net/http has them from, since net/http itself adds some to the
// header and removes others. It also returns the length of the head.
func readHeader(data []byte) (textproto.MIMEHeader, int, error) {
	src := bytes.NewReader(data)
	buf := bufio.NewReader(src)
	r := textproto.NewReader(buf)
	if _, err := r.ReadLine(); err != nil {
		return nil, 0, err
	}
	header, err := r.ReadMIMEHeader()
	return header, len(data) - src.Len() - buf.Buffered(), err
}

// isPRI reports whether the request has the one method that net/http knows nothing about and that RFC 9113, Section
// 3.4, keeps from HTTP/1.
func isPRI(req *http.Request) bool { return req.Method == "PRI" }

// hasNoTarget reports whether there is nothing between the spaces of the request line, which net/http takes for
// CONNECT. RFC 9112, Section 3.2, has no empty request-target.
func hasNoTarget(req *http.Request) bool {
	return req.Method == http.MethodConnect && req.RequestURI == ""
}

// The following are the reasons for which net/http rejects a complete head. They are about what the parts of the head
// mean, which is for the server to judge, and not about how a head is told from other bytes.

// isBadURL reports whether net/url does not parse the request-target, which it does for percent-encoding, host and
// port.
func isBadURL(r result) bool {
	target := r.Target
	if r.Method == http.MethodConnect && !strings.HasPrefix(target, "/") {
		target = "http://" + target
	}
	_, err := url.ParseRequestURI(target)
	return err != nil
}

// hasManyHosts: RFC 9112, Section 3.2, allows one Host.
func hasManyHosts(header textproto.MIMEHeader) bool { return len(header["Host"]) > 1 }

// hasBadContentLength: RFC 9112, Section 6.3, needs one valid length.
func hasBadContentLength(header textproto.MIMEHeader) bool {
	for _, v := range header["Content-Length"] {
		v = textproto.TrimString(v)
		if _, err := strconv.ParseUint(v, 10, 63); err != nil || v != textproto.TrimString(header["Content-Length"][0]) {
			return true
		}
	}
	return false
}

// hasBadTransferEncoding: net/http knows no coding but chunked, and ignores the field in HTTP/1.0.
func hasBadTransferEncoding(r result, header textproto.MIMEHeader) bool {
	te := header["Transfer-Encoding"]
	return r.Minor > 0 && (len(te) > 1 || len(te) == 1 && !http1.EqualName([]byte(te[0]), "chunked"))
}

// hasBadTrailer: RFC 9110, Section 6.5.1, keeps fields that frame the message out of the trailer section.
func hasBadTrailer(r result, header textproto.MIMEHeader) bool {
	if r.Minor == 0 || len(header["Transfer-Encoding"]) == 0 {
		return false
	}
	for _, v := range header["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			switch textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)) {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return true
			}
		}
	}
	return false
}

// checkOracle compares what the parser says about data with what net/http does.
func checkOracle(t *testing.T, data []byte) {
	t.Helper()
	got := parse(data)
	if rest, ok := bytes.CutPrefix(data, []byte("\n")); ok || bytes.HasPrefix(data, []byte("\r\n")) {
		// net/http ignores an empty line only behind a POST request.
		if !ok {
			rest = data[2:]
		}
		if len(rest) > 0 && (rest[0] == '\r' || rest[0] == '\n') {
			if got.State != http1.Invalid {
				t.Fatalf("%q: state is %d, and there is a second empty line", data, got.State)
			}
			return
		}
		if got.HeadLen > 0 {
			got.HeadLen -= len(data) - len(rest)
		}
		data = rest
	}
	req, err := readRequest(data)
	if got.State != http1.Complete {
		if err == nil && !(got.State == http1.Invalid && (isPRI(req) || hasNoTarget(req))) {
			t.Fatalf("%q: net/http accepts, state is %d with error %+v", data, got.State, got.Err)
		}
		return
	}

	header, headLen, headerErr := readHeader(data)
	if headerErr != nil {
		t.Fatalf("%q is complete, net/textproto: %v", data, headerErr)
	}
	if got.HeadLen != headLen {
		t.Errorf("%q: head of %d bytes, want %d", data, got.HeadLen, headLen)
	}
	fields := make(textproto.MIMEHeader)
	for _, f := range got.Fields {
		fields.Add(f.Name, string(http1.Unfold(nil, []byte(f.Value))))
	}
	if !maps.EqualFunc(header, fields, slices.Equal) {
		t.Errorf("%q: fields of net/textproto (-) and of the parser (+):\n%s", data, cmp.Diff(header, fields))
	}

	rejected := isBadURL(got) || hasManyHosts(header) || hasBadContentLength(header) ||
		hasBadTransferEncoding(got, header) || hasBadTrailer(got, header)
	if rejected != (err != nil) {
		t.Fatalf("%q is complete and expected to be rejected by net/http: %v; got: %v", data, rejected, err)
	}
	if err != nil {
		return
	}
	want := got
	want.Method, want.Target, want.Minor = req.Method, req.RequestURI, req.ProtoMinor
	if d := diff(want, got); d != "" {
		t.Errorf("%q: net/http (-) and the parser (+):\n%s", data, d)
	}
}

// FuzzParse checks that it does not matter how the data is cut up, and compares the parser with net/http. Each byte of
// cuts is the length of a cut.
func FuzzParse(f *testing.F) {
	for _, c := range captures(f) {
		f.Add(c.data, []byte{0})
	}
	for _, head := range []string{
		"CONNECT [::1]:443 HTTP/1.0\n\n",
		"CONNECT  HTTP/1.0\n\n",
		"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
		"GET http://u@h:1/%2f?q HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET / HTTP/1.1\r\nA: b \r\n \r\n\tc\r\n d\n\r\n",
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: a, Trailer\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx",
	} {
		f.Add([]byte(head), []byte{1, 3, 200})
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		if len(data) > 1<<10 {
			t.Skip("checking every prefix takes too long")
		}
		var i int
		checkIncremental(t, data, func() int {
			if len(cuts) == 0 {
				return 1
			}
			i++
			return 1 + int(cuts[(i-1)%len(cuts)])
		})
		checkOracle(t, data)
	})
}
