package clienthello

// Alerts of RFC 8446, Section 6.
const (
	alertUnexpectedMessage = 10
	alertRecordOverflow    = 22
	alertIllegalParameter  = 47
	alertDecodeError       = 50
	alertInternalError     = 80
)

// An Error says what is wrong with a ClientHello. Connections share it, so it is not to be modified.
type Error struct {
	Alert  uint8  // the fatal alert that tells the client so (RFC 8446, Section 6.2)
	Reason string // the same for people
}

// Error returns the reason, with some context.
func (e *Error) Error() string { return "malformed TLS ClientHello: " + e.Reason }

// Of the record layer and of the framing of messages.
var (
	errInterrupted   = &Error{alertUnexpectedMessage, "another record type interrupts the ClientHello"}
	errEmptyRecord   = &Error{alertUnexpectedMessage, "empty handshake record"}
	errRecordTooLong = &Error{alertRecordOverflow, "record is too long"}

	// This is no mistake of the client's but a limit of ours, for which crypto/tls sends the same alert.
	errMessageTooLong = &Error{alertInternalError, "ClientHello is too long"}
)

// Of the ClientHello. The decode_error alert is for what does not parse, the illegal_parameter alert for what parses
// but contradicts itself or its RFC.
var (
	errMalformed          = &Error{alertDecodeError, "fields do not parse"}
	errExtensions         = &Error{alertDecodeError, "extensions do not parse"}
	errServerName         = &Error{alertDecodeError, "server_name extension does not parse"}
	errALPN               = &Error{alertDecodeError, "application_layer_protocol_negotiation extension does not parse"}
	errSupportedVersions  = &Error{alertDecodeError, "supported_versions extension does not parse"}
	errDuplicateExtension = &Error{alertIllegalParameter, "duplicate extension"}
	errServerNames        = &Error{alertIllegalParameter, "more than one server name"}
	errTrailingDot        = &Error{alertIllegalParameter, "server name ends with a dot"}
)
