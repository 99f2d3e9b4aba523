package probe

import (
	"crypto/x509/pkix"
	"encoding/asn1"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// distinguishedName writes a name in DER in words.
func distinguishedName(der []byte) string {
	var rdn pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdn); err != nil {
		return "a name that cannot be read"
	}
	return wire.Printable(rdn.String())
}
