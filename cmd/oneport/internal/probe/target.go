package probe

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// A Target is what is probed.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of a socket
	Scheme  string // "http" or "https", "" if the target is no URL
	Path    string // of the URL
	name    string // as it was given
}

// ParseTarget parses host:port, a URL, or unix: and the path of a socket.
func ParseTarget(s string) (Target, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if strings.HasPrefix(path, "///") {
			path = path[2:]
		}
		if path == "" {
			return Target{}, errors.New("unix: needs the path of a socket")
		}
		return Target{Network: "unix", Address: path, name: "unix:" + path}, nil
	}
	if !strings.Contains(s, "://") {
		host, port, err := net.SplitHostPort(s)
		if err != nil || port == "" {
			return Target{}, fmt.Errorf("%q is neither host:port nor a URL such as http://localhost:8080/", s)
		}
		if host == "" {
			host = "localhost"
		}
		return Target{Network: "tcp", Address: net.JoinHostPort(host, port), name: net.JoinHostPort(host, port)}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, err
	}
	port := u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return Target{}, fmt.Errorf("the scheme of %q is neither http nor https", s)
	case u.Hostname() == "":
		return Target{}, fmt.Errorf("%q names no host", s)
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	return Target{
		Network: "tcp", Address: net.JoinHostPort(u.Hostname(), port), Scheme: u.Scheme, Path: u.RequestURI(),
		name: net.JoinHostPort(u.Hostname(), port),
	}, nil
}

// String returns host:port, or unix: and a path.
func (t Target) String() string { return t.name }

func (t Target) host() string {
	if t.Network == "unix" {
		return "localhost"
	}
	host, _, _ := net.SplitHostPort(t.Address)
	return host
}

func (t Target) port() string {
	_, port, _ := net.SplitHostPort(t.Address)
	return port
}

// authority is what requests have in Host and :authority.
func (t Target) authority() string {
	switch {
	case t.Network == "unix":
		return "localhost"
	case t.Scheme == "http" && t.port() == "80", t.Scheme == "https" && t.port() == "443":
		host := t.host()
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return host
	}
	return t.Address
}
