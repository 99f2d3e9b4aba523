package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// A certificate is one in files that somebody replaces before it expires, such as an ACME client, or Kubernetes in a
// volume with a Secret. New connections get the new certificate; those that exist go on.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// get is a tls.Config's GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// load reads the files. On an error the certificate stays what it is.
func (c *certificate) load() error {
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("the certificate in %s: %w", c.certFile, err)
	}
	c.current.Store(&cert)
	return nil
}

// watch reads the files again when it is asked to and at each tick, until ctx ends. A certificate that cannot be used,
// as while only one of its two files is replaced, is reported, and tried again at the next tick.
func (c *certificate) watch(ctx context.Context, ask <-chan os.Signal, tick <-chan time.Time, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ask:
		case <-tick:
		}
		old := c.current.Load()
		if err := c.load(); err != nil {
			log.Error("the old certificate stays in use", "err", err, "not_after", old.Leaf.NotAfter)
		} else if cert := c.current.Load(); !bytes.Equal(cert.Leaf.Raw, old.Leaf.Raw) {
			log.Info("new certificate", "names", cert.Leaf.DNSNames, "not_after", cert.Leaf.NotAfter)
		}
	}
}
