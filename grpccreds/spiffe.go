package grpccreds

import (
	"crypto/tls"
	"net/url"

	"google.golang.org/grpc/grpclog"
)

var logger = grpclog.Component("grpccreds")

// The limits of the SPIFFE ID specification, 2.1 and 2.3.
const (
	maxSPIFFEID    = 2048
	maxTrustDomain = 255
)

// spiffeID returns the SPIFFE ID of the client's certificate, or nil. What counts as one is what counts with
// credentials.NewTLS: a certificate has one URI at most that is to be an ID, and no other URI beside it (X.509-SVID
// specification, 2).
func spiffeID(state tls.ConnectionState) *url.URL {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	uris := state.PeerCertificates[0].URIs
	for _, u := range uris {
		if u.Scheme != "spiffe" || u.Opaque != "" || u.User.Username() != "" {
			continue
		}
		reason := ""
		switch {
		case len(u.String()) > maxSPIFFEID:
			reason = "it is longer than 2048 bytes"
		case u.Host == "":
			reason = "the trust domain is empty"
		case u.Path == "":
			reason = "the path is empty"
		case len(u.Host) > maxTrustDomain:
			reason = "the trust domain is longer than 255 bytes"
		case len(uris) > 1:
			reason = "the certificate has other URIs beside it"
		}
		if reason != "" {
			logger.Warningf("the client's certificate has no valid SPIFFE ID: %s", reason)
			return nil
		}
		return u
	}
	return nil
}
