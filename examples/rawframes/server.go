package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
)

// server serves HTTP/2 connections.
type server struct {
	log *slog.Logger

	mu       sync.Mutex
	conns    map[*conn]struct{}
	stopping bool
	running  sync.WaitGroup
}

func newServer(log *slog.Logger) *server {
	return &server{log: log, conns: make(map[*conn]struct{})}
}

// serve serves the connections of l until that is closed.
func (s *server) serve(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		s.start(nc)
	}
}

func (s *server) start(nc net.Conn) {
	c := newConn(nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.running.Go(func() {
		if err := c.serve(); err != nil {
			s.log.Warn("connection ended", slog.Any("remote", nc.RemoteAddr()), slog.Any("err", err))
		}
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
}

// shutdown waits until every connection has answered its running requests and ended. If ctx ends first, it cuts them
// off and returns the context's error.
func (s *server) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for c := range s.conns {
		go c.shutdown() // it writes, for which a slow client can make it wait
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.nc.Close()
		}
	})
	s.running.Wait()
	if !stop() {
		return ctx.Err()
	}
	return nil
}
