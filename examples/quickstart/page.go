package main

import (
	_ "embed"
	"html/template"
	"net/http"

	"github.com/oneport-go/oneport/examples/quickstart/greeterpb"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// newHandler returns the handler for HTTP requests.
func newHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/hello/{name}", greeter{})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// This fails only if the client is gone.
		_ = page.Execute(w, struct {
			Host, Protocol string
			TLS            bool
			Groups         []commandGroup
		}{r.Host, r.Proto, r.TLS != nil, commands(r.Host, "")})
	})
	return mux
}

// A command is one to copy and paste.
type command struct{ Does, Line string }

// A commandGroup has commands for one kind of connection.
type commandGroup struct {
	Title    string
	Commands []command
}

// commands returns commands that call the server at the address, some of them with the client certificate, if there is
// a file with one.
func commands(addr, clientFile string) []commandGroup {
	const hello = "/v1/hello/World"
	call := `-d '{"name":"World"}' ` + addr + " " + greeterpb.Greeter_ServiceDesc.ServiceName + "/SayHello"
	groups := []commandGroup{
		{"Try it without TLS", []command{
			{"REST over HTTP/1.1", "curl http://" + addr + hello},
			{"REST over HTTP/2, with prior knowledge", "curl --http2-prior-knowledge http://" + addr + hello},
			{"REST over HTTP/2, by Upgrade: h2c", "curl --http2 http://" + addr + hello},
			{"gRPC", "grpcurl -plaintext " + call},
			{"gRPC health check", "grpcurl -plaintext " + addr + " grpc.health.v1.Health/Check"},
			{"gRPC server reflection", "grpcurl -plaintext " + addr + " list"},
		}},
		{"Try it over TLS", []command{
			{"REST over HTTP/2, by ALPN", "curl -k https://" + addr + hello},
			{"REST over HTTP/1.1", "curl -k --http1.1 https://" + addr + hello},
			{"gRPC", "grpcurl -insecure " + call},
		}},
	}
	if clientFile != "" {
		groups = append(groups, commandGroup{"Try it over TLS, each side with a certificate", []command{
			{"REST", "curl --cacert " + clientFile + " --cert " + clientFile + " https://" + addr + hello},
			{"gRPC", "grpcurl -cacert " + clientFile + " -cert " + clientFile + " -key " + clientFile + " " + call},
		}})
	}
	return groups
}
