package etcd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// patience is how long the test waits for what has to happen. etcd itself takes up to 7 seconds to end requests.
const patience = 30 * time.Second

func TestEtcd(t *testing.T) {
	t.Run("insecure", func(t *testing.T) { test(t, nil) })
	t.Run("TLS with client certificates", func(t *testing.T) { test(t, newPKI(t)) })
}

func test(t *testing.T, pki *pki) {
	start := time.Now()
	lap := func(what string) {
		t.Logf("%s: %v", what, time.Since(start).Round(time.Millisecond))
		start = time.Now()
	}
	client := freeURL(t, pki != nil)
	var tlsConfig *tls.Config
	if pki != nil {
		tlsConfig = pki.client
	}
	e, err := embed.StartEtcd(config(t, client, pki))
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	stop := sync.OnceFunc(func() {
		e.Close()
		close(stopped)
	})
	defer func() { go stop() }() // with the original cmux it may not return
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		t.Fatal(err)
	case <-ctx.Done():
		t.Fatal("etcd does not get ready")
	}
	lap("start")

	useGRPC(t, ctx, client.String(), tlsConfig)
	lap("clientv3")
	useHTTP(t, ctx, client.String(), tlsConfig)
	lap("HTTP")

	silent, err := net.Dial("tcp", client.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// It was accepted before a connection that is answered after it.
	useHTTP(t, ctx, client.String(), tlsConfig)
	start = time.Now()
	go stop()
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Errorf("etcd has not stopped in %v, with a client that says nothing", patience)
	}
	lap("stop")
}

// config is for a small etcd that serves clients at the URL.
func config(t *testing.T, client url.URL, pki *pki) *embed.Config {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{filepath.Join(t.TempDir(), "log")}
	cfg.UnsafeNoFsync = true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls = []url.URL{freeURL(t, false)}
	if pki != nil {
		cfg.ClientTLSInfo = transport.TLSInfo{
			CertFile: pki.cert, KeyFile: pki.key, TrustedCAFile: pki.ca, ClientCertAuth: true,
			ClientCertFile: pki.cert, ClientKeyFile: pki.key, // of the gateway, which is a client as well
		}
	}
	return cfg
}

// useGRPC makes calls of each kind.
func useGRPC(t *testing.T, ctx context.Context, endpoint string, tlsConfig *tls.Config) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: tlsConfig, DialTimeout: patience,
		//lint:ignore SA1019 a server that has just been started may not listen yet
		DialOptions: []grpc.DialOption{grpc.WithBlock()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	watch := c.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	lease, err := c.Grant(ctx, 60)
	must("lease", err)
	for i := range 100 {
		_, err := c.Put(ctx, fmt.Sprintf("k%d", i), strings.Repeat("v", 1+i*100), clientv3.WithLease(lease.ID))
		must("put", err)
	}
	for seen := 0; seen < 100; {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("watch: %v", r.Err())
		}
		seen += len(r.Events)
	}
	got, err := c.Get(ctx, "k", clientv3.WithPrefix())
	must("get", err)
	if len(got.Kvs) != 100 {
		t.Errorf("get: %d keys, want 100", len(got.Kvs))
	}
	_, err = c.KeepAliveOnce(ctx, lease.ID)
	must("keep-alive", err)
	tx, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("k0"), "=", "v")).Then(clientv3.OpPut("k0", "w")).
		Else(clientv3.OpPut("k0", "x")).Commit()
	must("transaction", err)
	if !tx.Succeeded {
		t.Error("the transaction has not succeeded")
	}
	_, err = c.Revoke(ctx, lease.ID)
	must("revoke", err)
	_, err = c.Put(ctx, "json", "value")
	must("put", err)
}

// useHTTP uses the JSON gateway and the pages over HTTP/1.
func useHTTP(t *testing.T, ctx context.Context, base string, tlsConfig *tls.Config) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig}}
	defer c.CloseIdleConnections()
	do := func(method, path, body string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 1 {
			t.Errorf("%s: %s %s, %v: %s", path, resp.Proto, resp.Status, err, b)
		}
		return b
	}
	var found struct {
		Kvs []struct{ Value []byte }
	}
	body := fmt.Sprintf(`{"key": %q}`, base64.StdEncoding.EncodeToString([]byte("json")))
	if b := do("POST", "/v3/kv/range", body); json.Unmarshal(b, &found) != nil || len(found.Kvs) != 1 || string(found.Kvs[0].Value) != "value" {
		t.Errorf("/v3/kv/range: %s", b)
	}
	for path, want := range map[string]string{
		"/health":  `"health":"true"`,
		"/version": `"etcdserver":"3.`,
		"/metrics": "etcd_server_has_leader 1",
	} {
		if b := do("GET", path, ""); !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %.300s", path, b)
		}
	}
}

// freeURL returns a URL with a port that was free a moment ago: etcd wants to know it before it listens.
func freeURL(t *testing.T, secure bool) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u := url.URL{Scheme: "http", Host: l.Addr().String()}
	if secure {
		u.Scheme = "https"
	}
	return u
}

// pki is a certificate for the server and the client, in files.
type pki struct {
	ca, cert, key string
	client        *tls.Config
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	check(err)
	dir := t.TempDir()
	p := &pki{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	check(os.WriteFile(p.ca, certPEM, 0o600))
	check(os.WriteFile(p.cert, certPEM, 0o600))
	check(os.WriteFile(p.key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	p.client = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return p
}
