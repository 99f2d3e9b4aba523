package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

// runProxy is set in the environment of a process that is to be etcd's own main function.
const runProxy = "ONEPORT_TEST_RUN_ETCD"

func TestMain(m *testing.M) {
	if os.Getenv(runProxy) != "" {
		etcdmain.Main(os.Args)
		return
	}
	os.Exit(m.Run())
}

// TestGRPCProxy runs another program that imports cmux: "etcd grpc-proxy", which has TLS below the multiplexer, over
// connections of its own type.
func TestGRPCProxy(t *testing.T) {
	t.Run("insecure", func(t *testing.T) { testProxy(t, nil) })
	t.Run("TLS with client certificates", func(t *testing.T) { testProxy(t, newPKI(t)) })
}

func testProxy(t *testing.T, pki *pki) {
	endpoint := freeURL(t, pki != nil)
	e, err := embed.StartEtcd(config(t, endpoint, pki))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	proxy := freeURL(t, pki != nil)
	args := []string{"grpc-proxy", "start", "--endpoints=" + endpoint.String(), "--listen-addr=" + proxy.Host}
	var tlsConfig *tls.Config
	if pki != nil {
		args = append(args, "--cert-file="+pki.cert, "--key-file="+pki.key, "--trusted-ca-file="+pki.ca,
			// It is a client of etcd, and of itself.
			"--cert="+pki.cert, "--key="+pki.key, "--cacert="+pki.ca)
		tlsConfig = pki.client
	}
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), runProxy+"=1")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%v:\n%s", cmd, &output)
		}
	}()
	useGRPC(t, ctx, proxy.String(), tlsConfig)

	c := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig}}
	defer c.CloseIdleConnections()
	for path, want := range map[string]string{
		"/health":  `"health":"true"`,
		"/metrics": "etcd_server_has_leader 1",
	} {
		req, err := http.NewRequestWithContext(ctx, "GET", proxy.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.ProtoMajor != 1 || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %s %s, %v: %.300s", path, resp.Proto, resp.Status, err, b)
		}
	}
}
