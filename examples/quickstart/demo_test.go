package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := runDemo(listen(t), &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	const unit = `[0-9.]+(µs|ms|s)`
	table := regexp.MustCompile(`^CLIENT +PROTOCOL SEEN +TLS +SERVED BY +EARLY SETTINGS +FIRST BYTE AFTER +ANSWER
grpc-go +HTTP/2 +no +grpc +sent +` + unit + ` +Hello, gRPC \(gRPC\)
net/http, HTTP/2 +HTTP/2 +no +http +(not )?sent +` + unit + ` +Hello, HTTP2 \(HTTP/2.0\)
net/http, HTTP/1.1 +HTTP/1 +no +http +not sent +` + unit + ` +Hello, HTTP1 \(HTTP/1.1\)
Upgrade: h2c +HTTP/2, upgraded +no +http +not sent +` + unit + ` +Hello, Upgrade \(HTTP/2.0\)
grpc-go, TLS +HTTP/2 +ALPN h2 +grpc +sent +` + unit + ` +Hello, gRPC \(gRPC\)
net/http, HTTP/2, TLS +HTTP/2 +ALPN h2 +http +(not )?sent +` + unit + ` +Hello, HTTP2 \(HTTP/2.0\)
net/http, HTTP/1.1, TLS +HTTP/1 +ALPN http/1.1 +http +not sent +` + unit + ` +Hello, HTTP1 \(HTTP/1.1\)
HTTP/2, TLS without ALPN +HTTP/2 +ALPN none +http +(not )?sent +` + unit + ` +Hello, bare \(HTTP/2.0\)
grpc-go, mutual TLS +HTTP/2 +ALPN h2 +grpc +sent +` + unit + ` +Hello, gRPC \(gRPC, from quickstart-client\)
net/http, mutual TLS +HTTP/2 +ALPN h2 +http +(not )?sent +` + unit + ` +Hello, HTTP2 \(HTTP/2.0, from quickstart-client\)
100 of each on one connection +HTTP/2 +no +http and grpc +(not )?sent +` + unit + ` +100 and 100 greetings \(gRPC and HTTP/2.0\)
rubbish +unknown +no +refused: no route +not sent +never came +none
$`)
	if !table.Match(out.Bytes()) {
		t.Errorf("got a table that does not match %s:\n%s", table, &out)
	}
}

func TestDemoOfBrokenServer(t *testing.T) {
	t.Parallel()
	l := listen(t)
	l.Close()
	var out bytes.Buffer
	err := runDemo(l, &out)
	for _, c := range demoClients {
		if err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("got error %v, want one that names client %q", err, c.name)
		}
	}
}

func TestDemoCheck(t *testing.T) {
	t.Parallel()
	for _, c := range demoClients {
		if err := c.check(c.want); err != nil {
			t.Errorf("%s, as wanted: %v", c.name, err)
		}
		for what, change := range map[string]func(*outcome){
			"message":                func(o *outcome) { o.Answer.Message = "Hello" },
			"protocol of the answer": func(o *outcome) { o.Answer.Protocol = "HTTP/1.0" },
			"TLS of the answer":      func(o *outcome) { o.Answer.TLS = !o.Answer.TLS },
			"client of the answer":   func(o *outcome) { o.Answer.Client = "nobody" },
			"TLS":                    func(o *outcome) { o.Verdict.TLS = !o.Verdict.TLS },
			"ALPN":                   func(o *outcome) { o.Verdict.ALPN = "smtp" },
			"upgraded":               func(o *outcome) { o.Verdict.Upgraded = !o.Verdict.Upgraded },
			"protocol seen":          func(o *outcome) { o.Verdict.Protocol = "TLS" },
			"route":                  func(o *outcome) { o.Verdict.Route = "other" },
			"early SETTINGS sent":    func(o *outcome) { o.Verdict.EarlySettings = !o.Verdict.EarlySettings },
			"reason of the refusal":  func(o *outcome) { o.Verdict.Refused = "timeout" },
		} {
			got := c.want
			change(&got)
			err := c.check(got)
			switch ok := c.racesSettings && what == "early SETTINGS sent"; {
			case ok && err != nil:
				t.Errorf("%s, either is right: %v", c.name, err)
			case !ok && (err == nil || !strings.HasPrefix(err.Error(), what+": got ")):
				t.Errorf("%s, wrong %s: got error %v", c.name, what, err)
			}
		}
		if err := c.check(outcome{}); err == nil {
			t.Errorf("%s: nothing observed, no error", c.name)
		}
	}
}
