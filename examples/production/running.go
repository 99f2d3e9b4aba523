package main

import (
	"context"
	"maps"
	"net/http"
	"sync"

	"google.golang.org/grpc"
)

// running counts the requests that are being answered, by name, for the log to tell what the end of the server waits
// for.
type running struct {
	mu sync.Mutex
	n  map[string]int
}

// begin counts a request until the returned function is called.
func (r *running) begin(name string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = make(map[string]int)
	}
	r.n[name]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.n[name]--; r.n[name] == 0 {
			delete(r.n, name)
		}
	}
}

func (r *running) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.n)
}

func (r *running) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer r.begin(req.Method + " " + req.URL.Path)()
		next.ServeHTTP(w, req)
	})
}

func (r *running) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	defer r.begin(info.FullMethod)()
	return handler(ctx, req)
}

func (r *running) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	defer r.begin(info.FullMethod)()
	return handler(srv, stream)
}
