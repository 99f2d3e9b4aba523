package clienthello

import (
	"crypto/tls"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

const (
	extensionServerName           = 0      // RFC 6066, Section 3
	extensionALPN                 = 16     // RFC 7301, Section 3.1
	extensionSupportedVersions    = 43     // RFC 8446, Section 4.2.1
	extensionEncryptedClientHello = 0xfe0d // RFC 9849, Section 5

	nameTypeHostName = 0 // RFC 6066, Section 3
)

// A Hello is what a ClientHello says that matters for routing. Values that clients send only to keep servers tolerant
// (GREASE, RFC 8701) are left out.
type Hello struct {
	// ServerName is the name of the server the client wants, as it was sent, or "". With ECH it is the public name of
	// the client-facing server.
	ServerName string
	// ALPN holds the application protocols the client speaks, in its order of preference.
	ALPN []string
	// Versions holds the protocol versions the client speaks: the ones it lists, in its order, or, if it predates that
	// list, every version from TLS 1.0 up to the one it names, the highest first.
	Versions []uint16
	// ECH reports whether the ClientHello has an encrypted_client_hello extension (RFC 9849), real or GREASE.
	ECH bool
}

// parseHello parses the body of a ClientHello (RFC 8446, Section 4.1.2). It never refers to body afterwards.
func parseHello(body cryptobyte.String) (*Hello, *Error) {
	var (
		legacyVersion                 uint16
		session, suites, compressions cryptobyte.String
		extensions                    cryptobyte.String
	)
	if !body.ReadUint16(&legacyVersion) ||
		!body.Skip(32) || // random
		!body.ReadUint8LengthPrefixed(&session) ||
		!body.ReadUint16LengthPrefixed(&suites) || len(suites)%2 != 0 ||
		!body.ReadUint8LengthPrefixed(&compressions) {
		return nil, errMalformed
	}
	// A ClientHello without extensions ends here (RFC 5246, Section 7.4.1.2).
	if !body.Empty() && (!body.ReadUint16LengthPrefixed(&extensions) || !body.Empty()) {
		return nil, errExtensions
	}

	h := new(Hello)
	types := make([]uint16, 0, 32)
	for !extensions.Empty() {
		var (
			typ  uint16
			data cryptobyte.String
			err  *Error
		)
		if !extensions.ReadUint16(&typ) || !extensions.ReadUint16LengthPrefixed(&data) {
			return nil, errExtensions
		}
		types = append(types, typ)
		switch typ {
		case extensionServerName:
			err = h.parseServerName(data)
		case extensionALPN:
			err = h.parseALPN(data)
		case extensionSupportedVersions:
			err = h.parseSupportedVersions(data)
		case extensionEncryptedClientHello:
			h.ECH = true
		}
		if err != nil {
			return nil, err
		}
	}

	// No extension may occur twice (RFC 8446, Section 4.2), whichever it is: two servers could each believe a different
	// one.
	slices.Sort(types)
	if n := len(types); len(slices.Compact(types)) < n {
		return nil, errDuplicateExtension
	}
	// The list counts even if nothing is left of it without GREASE.
	if !slices.Contains(types, extensionSupportedVersions) {
		h.Versions = versionsUpTo(legacyVersion)
	}
	return h, nil
}

// parseServerName parses a ServerNameList (RFC 6066, Section 3).
func (h *Hello) parseServerName(data cryptobyte.String) *Error {
	var names cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&names) || !data.Empty() || names.Empty() {
		return errServerName
	}
	for !names.Empty() {
		var (
			typ  uint8
			name cryptobyte.String
		)
		// Names of types yet to come have to begin with their length too.
		if !names.ReadUint8(&typ) || !names.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return errServerName
		}
		if typ != nameTypeHostName {
			continue
		}
		if h.ServerName != "" {
			// "MUST NOT contain more than one name of the same name_type."
			return errServerNames
		}
		h.ServerName = string(name)
		if strings.HasSuffix(h.ServerName, ".") {
			// "... represented as a byte string using ASCII encoding without a trailing dot."
			return errTrailingDot
		}
	}
	return nil
}

// parseALPN parses a ProtocolNameList (RFC 7301, Section 3.1).
func (h *Hello) parseALPN(data cryptobyte.String) *Error {
	var names cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&names) || !data.Empty() || names.Empty() {
		return errALPN
	}
	for !names.Empty() {
		var name cryptobyte.String
		if !names.ReadUint8LengthPrefixed(&name) || name.Empty() {
			return errALPN
		}
		if len(name) == 2 && isGREASE(uint16(name[0])<<8|uint16(name[1])) {
			continue
		}
		h.ALPN = append(h.ALPN, string(name))
	}
	return nil
}

// parseSupportedVersions parses the client's SupportedVersions (RFC 8446, Section 4.2.1).
func (h *Hello) parseSupportedVersions(data cryptobyte.String) *Error {
	var versions cryptobyte.String
	if !data.ReadUint8LengthPrefixed(&versions) || !data.Empty() || versions.Empty() {
		return errSupportedVersions
	}
	for !versions.Empty() {
		var version uint16
		if !versions.ReadUint16(&version) {
			return errSupportedVersions
		}
		if !isGREASE(version) {
			h.Versions = append(h.Versions, version)
		}
	}
	return nil
}

// versionsUpTo returns the versions of a client that sends no supported_versions. It can be offered TLS 1.2 at most,
// even if it names a higher version (RFC 8446, Section 4.2.1).
func versionsUpTo(legacyVersion uint16) []uint16 {
	versions := []uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	return slices.DeleteFunc(versions, func(v uint16) bool { return v > legacyVersion })
}

// isGREASE reports whether v is one of the values 0x0a0a, 0x1a1a, ... 0xfafa that RFC 8701, Section 2, reserves among
// versions, extensions and, as two bytes, application protocols.
func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }
